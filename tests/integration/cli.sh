#!/usr/bin/env bash
# The CLI on a development cluster: every command, its exit codes, its JSON, and what it says when something is wrong.
#
#   PAVE_BUILD=DIR tests/integration/cli.sh
#
# Own processes only, by the pids that the cluster's directory names; the directory is removed at the end.
set -u
build=${PAVE_BUILD:-$(cd "$(dirname "$0")/../.." && pwd)/build}
export PATH=$build/tools:$PATH
unset PAVE_CLUSTER PAVE_DEV_DIR
top=$(mktemp -d "${TMPDIR:-/tmp}/pave-cli-XXXXXX")
dir=$top/c
count=0 bad=0

cleanup() {
	pave dev down --dir "$dir" >/dev/null 2>&1
	if [ "$bad" -ne 0 ]; then
		for log in "$dir"/log/*.log; do echo "--- $log" >&2; tail -n 15 "$log" >&2; done
	fi
	rm -rf "$top"
}
trap cleanup EXIT

# expect CODE NAME COMMAND...: its exit code; stdout and stderr are left in $top/out, $top/err.
expect() {
	local want=$1 name=$2 got=0
	shift 2
	timeout 120 "$@" >"$top/out" 2>"$top/err" || got=$?
	count=$((count + 1))
	if [ "$got" -ne "$want" ]; then
		bad=$((bad + 1))
		echo "FAIL $name: exit $got, not $want: $*"
		sed 's/^/     | /' "$top/out" "$top/err" | tail -n 12
	elif [ "$want" -ne 0 ] && [ ! -s "$top/err" ] && [ ! -s "$top/out" ]; then
		bad=$((bad + 1))
		echo "FAIL $name: exit $got, and not a word why: $*"
	fi
}

# says NAME FILE WORDS: that the last command said so.
says() {
	count=$((count + 1))
	if ! grep -qF -- "$3" "$top/$2"; then
		bad=$((bad + 1))
		echo "FAIL $1: std$2 does not say \"$3\":"
		sed 's/^/     | /' "$top/$2" | tail -n 12
	fi
}

# json NAME EXPRESSION: true of the last command's stdout, as o.
json() {
	count=$((count + 1))
	if ! python3 -c "import json, sys; o = json.load(open(sys.argv[1])); sys.exit(0 if ($2) else 1)" "$top/out" 2>"$top/py"; then
		bad=$((bad + 1))
		echo "FAIL $1: not so: $2"
		head -c 600 "$top/out" "$top/py"
	fi
}

# -- without a cluster
expect 0 help pave --help
says help out "volume create"
expect 0 version pave --version
expect 0 help-of-one pave volume create --help
says help-of-one out "--size"
expect 2 no-command pave
expect 2 unknown pave volumes
expect 2 unknown-second pave volume destroy
says unknown-second err "volume delete"
expect 0 help-word pave help volume create
says help-word out "NAME --size SIZE"
expect 0 help-word-raw pave help evidence
says help-word-raw out "pave evidence keygen"
expect 2 help-word-unknown pave help volumes
expect 2 empty-name pave volume create '' --size 1GiB
says empty-name err "NAME is empty"
for n in 16384PiB 99999999999999999999; do
	expect 2 size-over pave volume create v --size "$n"
	says size-over err "--size \"$n\" is 16EiB or more"
done
expect 2 node-name pave node add 'Par 2' --site par
says node-name err '"Par 2" is no name'
expect 1 no-cluster env -C "$top" pave status
says no-cluster err PAVE_CLUSTER
# The presets, where no cluster is named.
expect 0 presets pave policy list
[ "$(tr '\n' ' ' <"$top/out")" = "secnumcloud-fr cloud-de-confiance hds dev " ] || { bad=$((bad + 1)); echo "FAIL presets: $(cat "$top/out")"; }
says presets err "ship with this program"
expect 0 presets-json pave policy list --json
json presets-json 'o == ["secnumcloud-fr", "cloud-de-confiance", "hds", "dev"]'
expect 0 preset pave policy show dev
json preset 'o["name"] == "dev"'
says preset err "the preset as it ships with this program"
expect 1 no-preset pave policy show hope
says no-preset err "there is no preset of this name"
expect 2 preset-which pave policy show
expect 2 policy-what pave policy shew
# What cannot be written down was not told: a report on a full disk is no success.
for words in --help --version "help volume" "volume create --help" "policy list" "policy list --json" "policy show dev" "completion bash"; do
	expect 1 "full $words" bash -c 'exec "$@" >/dev/full' _ pave $words
	says "full $words" err "the output cannot be written: No space left on device"
done
# Who reads no further is told nothing.
count=$((count + 1))
mkfifo "$top/closed"
bash -c 'exec 3<>"$1"; exec 4>"$1" 3<&-; pave help >&4' _ "$top/closed" 2>"$top/err"
[ $? = 1 ] && [ ! -s "$top/err" ] || { bad=$((bad + 1)); echo "FAIL closed: $(cat "$top/err")"; }
mkdir "$top/empty"
expect 2 dir-empty env -C "$top/empty" pave dev up --dir ''
expect 2 cluster-empty env -C "$top/empty" pave --cluster '' dev up
says cluster-empty err "--cluster is empty"
expect 4 policies-of-nobody pave --cluster 127.0.0.1:1 policy list
expect 4 nobody-there pave --cluster 127.0.0.1:1 status
says nobody-there err "127.0.0.1:1"
for a in 127.0.0.1:99999 nohost.invalid:7400; do
	expect 1 "address-$a" pave --cluster "$a" status
	says "address-$a" err "$a: a numeric HOST:PORT is needed, with a port from 1 to 65535"
done
expect 1 address-foreign pave --cluster 192.0.2.1:7400 status
says address-foreign err "--insecure allows it"
expect 1 verify-rootless env -C "$top" pave audit verify "$0"
says verify-rootless err "without --root FILE"
expect 1 no-such-dir pave --cluster "$top/nowhere" status
expect 2 name-of-volume pave volume create 'A b' --size 1GiB
expect 2 size-of-volume pave volume create v --size many
expect 2 no-size pave volume create v
expect 2 two-names pave volume create v w --size 1GiB
expect 2 unknown-option pave volume create v --siez 1GiB
expect 2 dev-option pave dev up --dir "$dir" --device-size 3
expect 2 dev-lifetime pave dev up --dir "$dir" --permit-lifetime 2h
expect 1 dev-site pave dev up --dir "$top/x" --sites 'par,../lyo'
expect 1 nothing-to-stop pave dev down --dir "$dir"
expect 0 completion pave completion bash
bash -n "$top/out" || { bad=$((bad + 1)); echo "FAIL completion: bash cannot parse it"; }
cp "$top/out" "$top/completion"
count=$((count + 1))
# offers WORD... = WORD...: after the first ones, of which the last is being written, completion offers the second ones.
offers() {
	local line=() words
	while [ "$1" != = ]; do
		line+=("$1")
		shift
	done
	shift
	words=$(bash -c 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pave; echo "${COMPREPLY[*]}"' _ "$top/completion" "${line[@]}")
	for w in "$@"; do
		case " $words " in
		*" $w "*) ;;
		*) bad=$((bad + 1)); echo "FAIL completion: after \"${line[*]}\" it offers no $w, but: $words" ;;
		esac
	done
}
offers pave volume "" = create map
offers pave "" = volume help completion
offers pave policy check -- = --policy --site --revocations --root --at --seen --insecure
offers pave evidence sign -- = --key --type --out
offers pave node device "" = list add retire
offers pave completion "" = bash
offers pave policy "" = check list show put
offers pave policy show "" = hds
offers pave volume create v --policy "" = hds
offers pave rebalance "" = plan run status pause resume cancel set
offers pave rebalance run -- = --rate
count=$((count + 1))
bash -c 'source "$1"; _pave_options "volume snapshot"; _pave_options "node add"' _ "$top/completion" | grep -q -e --read-only -e --identity && {
	bad=$((bad + 1))
	echo "FAIL completion: it offers options that the command does not have"
}
offers pave audit "" = export verify where report
offers pave audit report v1 -- = --out --from --to --file --root
offers pave node "" = list add drain undrain remove device
offers pave site "" = add list show revoke refresh evacuate
# The manual has every command, and every option that its help tells of.
count=$((count + 1))
python3 - "$(dirname "$0")/../../tools/man/pave.1" >"$top/py" 2>&1 <<'EOF' || { bad=$((bad + 1)); sed 's/^/FAIL manual: /' "$top/py"; }
import re, subprocess, sys
manual = open(sys.argv[1]).read()
items = {}  # command: the text of its entry
for item in re.split(r"^(?=\.It Ic )", manual, flags=re.M)[1:]:
    for words in re.split(r" , ", item.splitlines()[0].removeprefix(".It Ic ")):
        name = re.match(r"[a-z]+(?: [a-z]+)?", words.replace(" Cm ", " "))[0]
        items.setdefault(name, []).append(item)
        if name.endswith(" bash"):
            items[name.split()[0]] = [item]
told = lambda text: set(re.findall(r"--([a-z][a-z-]+)", text))
run = lambda *words: subprocess.run(["pave", *words, "--help"], capture_output=True, text=True, check=True).stdout
help_text = run().split("Everywhere:")
commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?) ", help_text[0], re.M)
assert len(commands) > 40, commands
for command in commands:
    if command in ("policy", "evidence"):  # these tell of several in one
        continue
    entry = "".join(items.get(command, []))
    assert entry, f"{command} is not in it"
    wanted = told(run(*command.split()).split("Everywhere:")[0])
    found = set(re.findall(r"Fl -([a-z][a-z-]+)", entry)) | ({"dir"} if command.startswith("dev") else set())
    foreign = {"identity", "type"} if command in ("node add", "root rotate") else set()
    assert wanted - found <= foreign, f"{command}: {wanted - found} is not in its entry"
EOF
# The other programs: their pages and their help have the same options.
for p in pave-pd pave-node pave-attach pave-inspect pave-bench; do
	expect 0 "$p-options" "$(ls "$build"/*/"$p")" --help
	for page in "$(dirname "$0")/../../tools/man/$p".?; do
		diff <(grep -oE -- '(^|[^a-z`-])--[a-z][a-z-]+' "$top/out" | grep -oE -- '--.*' | grep -vE -- '--(help|version)$' | sort -u) \
			<(grep -oE 'Fl -[a-z][a-z-]+' "$page" | sed 's/Fl -/--/' | grep -vE -- '--(help|version)$' | sort -u) >"$top/py" || {
			bad=$((bad + 1))
			echo "FAIL $p-options: in its help (<), in its page (>): $(grep '^[<>]' "$top/py" | tr '\n' ' ')"
		}
	done
done
for p in pave-pd pave-node pave-attach; do
	expect 0 "$p-help" "$p" --help
	expect 0 "$p-version" "$p" --version
	expect 2 "$p-usage" "$p" --no-such-option
done

# -- up
expect 0 up pave dev up --dir "$dir" --sites par,lyo,rbx --device-size 512MiB --permit-lifetime 3s
says up out "rbx-1"
says up out "$dir"
export PAVE_CLUSTER=$dir
[ "$(stat -c %a "$dir/authority")" = 700 ] && [ "$(stat -c %a "$dir/authority/authority-1.pem")" = 600 ] || {
	bad=$((bad + 1))
	echo "FAIL up: anybody may read the authority's keys"
}
expect 0 dev-status pave dev status --dir "$dir" --json
json dev-status 'o["running"] and [p["name"] for p in o["processes"]] == ["pd", "par-1", "lyo-1", "rbx-1"] and all(p["pid"] for p in o["processes"])'
cp "$top/out" "$top/before"
expect 0 up-again pave dev up --dir "$dir" --json
json up-again '[p["pid"] for p in o["processes"]] == [p["pid"] for p in json.load(open("'"$top/before"'"))["processes"]]'
for pid in $(python3 -c 'import json; print(*[p["pid"] for p in json.load(open("'"$top/before"'"))["processes"]])'); do
	tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$dir" || { bad=$((bad + 1)); echo "FAIL up: process $pid does not name $dir"; }
done
expect 0 status pave status
says status out "secnumcloud-fr"
expect 0 status-json pave --json status
json status-json 'len(o["nodes"]) == 3 and len(o["sites"]) == 3 and o["permit_lifetime_ms"] == 3000 and o["revocations_version"] >= 1'
expect 0 nodes pave node list --json
json nodes 'all(n["state"] == "up" and n["eligible"] and n["eligible_until"] for n in o["nodes"])'
json nodes 'all(200 << 20 < n["size_bytes"] < 512 << 20 and n["live_bytes"] == 0 and n["free_bytes"] == n["size_bytes"] for n in o["nodes"])'
json nodes 'all(0 < n["reserve_bytes"] < n["size_bytes"] / 2 and n["full"] is False for n in o["nodes"])'

# -- evidence
expect 0 sites pave site list --json
json sites 'sorted(s["site"] for s in o["sites"]) == ["lyo", "par", "rbx"] and all(s["policies"]["secnumcloud-fr"]["eligible"] for s in o["sites"])'
expect 0 site pave site show par
says site out "under secnumcloud-fr: eligible until"
expect 1 no-site pave site show nowhere
expect 0 check pave policy check --policy secnumcloud-fr --site "$dir/evidence/site-par.dsse.json" \
	--revocations "$dir/evidence/revocations.dsse.json" --root "$dir/evidence/root.dsse.json" --json
json check 'o["eligible"] and o["until"] and o["failed"] == []'
expect 0 verify pave evidence verify --root "$dir/evidence/root.dsse.json" "$dir/evidence/site-lyo.dsse.json"
expect 0 add-again pave site add "$dir/evidence/site-par.dsse.json"
sed 's/"payload" *: *"..../"payload":"AAAA/' "$dir/evidence/site-par.dsse.json" >"$top/damaged.json"
expect 1 add-damaged pave site add "$top/damaged.json"
expect 1 add-other pave site add "$dir/evidence/revocations.dsse.json"
head -c 100 "$dir/evidence/site-par.dsse.json" >"$top/short.json"
expect 1 add-short pave site add "$top/short.json"
expect 1 add-missing pave site add "$top/missing.json"
cp "$dir/evidence/revocations.dsse.json" "$top/older-snapshot"
# What is no file is not replaced by one: a device would be gone.
mkfifo "$top/pipe"
expect 1 export-over pave audit export --out "$top/pipe"
says export-over err "$top/pipe: it is no regular file"
expect 1 sign-over pave evidence sign --key "tenant-a=$dir/authority/tenant-a.pem" --type site "$dir/evidence/site-par.dsse.json" --out "$top/pipe"
says sign-over err "$top/pipe: it is no regular file"
[ -p "$top/pipe" ] || { bad=$((bad + 1)); echo "FAIL export-over: the pipe is no pipe any more"; }
expect 2 export-both pave audit export --out - --json
# Several at once, each whole; nothing is left beside the file.
pids=
for i in 1 2 3 4; do
	pave audit export --out "$top/same" >/dev/null 2>>"$top/same-err" &
	pids="$pids $!"
done
count=$((count + 1))
for pid in $pids; do wait "$pid" || echo "exit $?" >>"$top/same-err"; done
[ -s "$top/same-err" ] && { bad=$((bad + 1)); echo "FAIL export-same: $(cat "$top/same-err")"; }
expect 0 export-same pave audit verify "$top/same"
count=$((count + 1))
[ "$(ls "$top"/same*)" = "$top/same
$top/same-err" ] || { bad=$((bad + 1)); echo "FAIL export-same: $(ls "$top"/same*)"; }
expect 1 export-full bash -c 'pave audit export --out - >/dev/full'
says export-full err "the output cannot be written: No space left on device"
# A version that nobody has would revoke the site.
expect 1 refresh-version pave site refresh --site par=9
says refresh-version err "the driver has version 1 of its certificate"
expect 1 refresh-site pave site refresh --site nowhere=1
says refresh-site err "pave site add comes first"
expect 2 refresh-two pave site refresh --site par=1 --site lyo=1
says refresh-two err "it was par already"
expect 0 refresh-nothing pave site list --json
json refresh-nothing 'all(s["policies"]["secnumcloud-fr"]["eligible"] for s in o["sites"])'

# What is in force is told, not what ships.
expect 0 policies-shipped pave policy list --json
json policies-shipped '[(p["policy"], p["version"], p["signed_by"]) for p in o["policies"]] == [(n, 1, "preset") for n in ("secnumcloud-fr", "cloud-de-confiance", "hds", "dev")]'
expect 0 policy-shipped pave policy show dev
json policy-shipped 'o["name"] == "dev" and o["version"] == 1'
says policy-shipped err "dev: version 1, in force in the driver; signed by nobody (the preset as it ships); digest "
for p in mine:3 dev:2; do
	pave policy show dev 2>"$top/err" | sed -e "s/\"name\": \"dev\"/\"name\": \"${p%:*}\"/" -e "s/\"version\": 1,/\"version\": ${p#*:},/" >"$top/policy"
	expect 0 "sign-$p" pave evidence sign --key "tenant-a=$dir/authority/tenant-a.pem" --type policy "$top/policy" --out "$top/policy.dsse.json"
	expect 0 "put-$p" pave policy put "$top/policy.dsse.json"
done
expect 0 policies pave policy list --json
json policies '{p["policy"]: (p["version"], p["signed_by"]) for p in o["policies"] if p["policy"] in ("dev", "mine", "hds")} == {"dev": (2, "tenant"), "mine": (3, "tenant"), "hds": (1, "preset")}'
json policies 'all(len(p["digest"]) == 64 and p["disputed"] is False for p in o["policies"])'
expect 0 policies-text pave policy list
says policies-text out "SIGNED BY"
expect 0 policy-mine pave policy show mine
json policy-mine 'o["name"] == "mine" and o["version"] == 3'
says policy-mine err "mine: version 3, in force in the driver; signed by tenant; digest "
expect 0 policy-dev pave policy show dev --json
json policy-dev '(o["policy"], o["version"], o["signed_by"], o["document"]["version"]) == ("dev", 2, "tenant", 2)'
expect 1 no-policy pave policy show hope
says no-policy err 'no policy "hope" is in force'

# -- volumes
expect 0 create pave volume create v1 --size 256MiB --chunk-size 64MiB --policy secnumcloud-fr --json
json create 'o["name"] == "v1" and o["size_bytes"] == 256 << 20 and o["replicas"] == 3 and o["state"] == "detached"'
expect 1 exists pave volume create v1 --size 256MiB
expect 1 chunk-size pave volume create v2 --size 256MiB --chunk-size 3MiB
expect 1 policy pave volume create v2 --size 256MiB --policy nonsense
says policy err nonsense
expect 0 thin pave volume create large --size 10GiB
expect 0 list pave volume list
says list out "10GiB"
expect 0 list-json pave volume list --json
json list-json '[v["name"] for v in o["volumes"]] == ["large", "v1"]'
expect 0 map pave volume map v1 --json
json map 'len(o["chunks"]) == 4 and all(len({r["site"] for r in c["replicas"]}) == 3 and c["state"] == "ok" for c in o["chunks"])'
expect 0 show pave volume show v1
says show out "secnumcloud-fr"
expect 1 no-volume pave volume show v9
expect 1 no-map pave volume map v9
expect 0 delete pave volume delete large
expect 1 deleted pave volume delete large
expect 0 again pave volume create large --size 256MiB
expect 0 again-deleted pave volume delete large

# -- attached
# From a directory that is named as seen from here: whoever uses the lines, and dev down, stand somewhere else.
expect 0 attach env -C "$top" PAVE_CLUSTER=c pave attach v1 --nbd unix:v1.sock --detach ${PAVE_TEST_TRANSPORT:+--transport $PAVE_TEST_TRANSPORT}
says attach out "socket='$top/v1.sock'"
# Why one failed is said once, and nothing of what others have in the same log.
expect 1 attach-nothing pave attach v9 --nbd "unix:$top/v9.sock" --detach
says attach-nothing err 'there is no volume "v9"'
expect 1 attach-alive pave attach v1 --nbd "unix:$top/v1b.sock" --detach
says attach-alive err "take it over with --force"
count=$((count + 1))
[ "$(wc -l <"$top/err")" = 1 ] || { bad=$((bad + 1)); echo "FAIL attach-alive: more than one line: $(cat "$top/err")"; }
expect 0 attached pave volume list --json
json attached '[v["state"] for v in o["volumes"]] == ["attached"]'
expect 1 in-use pave volume delete v1
says in-use err "pave detach v1"
attached_at=$(($(wc -l <"$dir/attach/v1/attach.log") + 1))
expect 0 with-attachment pave dev status --dir "$dir"
says with-attachment out "attach:v1"
expect 0 detach pave detach v1
# What was asked for is told without a word of failure.
count=$((count + 1))
tail -n +"$attached_at" "$dir/attach/v1/attach.log" >"$top/py"
grep -q "detach was asked for" "$top/py" && ! grep -nE "lost|disconnects|success|away" "$top/py" || { bad=$((bad + 1)); echo "FAIL detach: its log says: $(cat "$top/py")"; }
expect 0 detached pave volume list --json
json detached '[v["state"] for v in o["volumes"]] == ["detached"]'
# Who prepares to take over serves nobody yet, and says nothing of operations.
expect 0 prepare pave attach v1 --nbd "unix:$top/v1.sock" --detach --migrate ${PAVE_TEST_TRANSPORT:+--transport $PAVE_TEST_TRANSPORT}
cp "$top/out" "$top/prepared"
expect 4 trace-prepared pave trace v1 --seconds 1
says trace-prepared err "it does not serve yet"
kill "$(sed -n 's/.*prepared, pid \([0-9]*\);.*/\1/p' "$top/prepared")"

# -- what it is attached over: RDMA where there is a device, TCP where there is none, and no silence about it
expect 2 over-pigeons pave attach v1 --nbd "unix:$top/v1.sock" --detach --transport pigeons
says over-pigeons err "auto, tcp or rdma"
over=tcp
if [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ]; then
	over=rdma
else
	expect 1 over-rdma pave attach v1 --nbd "unix:$top/v1.sock" --detach --transport rdma
	says over-rdma err "this machine has no RDMA device"
	says over-rdma err "use --transport tcp, or auto"
fi
expect 0 over-auto pave attach v1 --nbd "unix:$top/v1.sock" --detach
for _ in $(seq 200); do
	pave status --json >"$top/out" 2>"$top/err" && grep -q '"transport"' "$top/out" && break
	sleep 0.1
done
expect 0 over-status pave status --json
json over-status '[r["transport"] for v in o["volumes"] for r in v["attached_replicas"]] == ["'$over'"] * 3'
expect 0 over-detach pave detach v1

# -- revocation
expect 2 revoke-time pave site revoke rbx --effective-from tomorrow
expect 1 revoke-nothing pave site revoke nowhere
expect 1 revoke-key pave site revoke rbx --key "auditor-1=$dir/authority/auditor-1.pem"
before=$(date +%s%3N)
expect 0 revoke pave site revoke rbx --reason "a test" --json
json revoke 'o["site"] == "rbx" and o["revocations_version"] >= 2'
# From now on, not from the beginning of this second, which would be told late.
json revoke '__import__("datetime").datetime.fromisoformat(o["effective_from"].replace("Z", "+00:00")).timestamp() * 1000 >= '"$before - 0.5"
from=$(sed -n 's/.*"effective_from": "\(.*\)".*/\1/p' "$top/out")
# Of two withdrawals the earlier one counts, and is told.
expect 0 revoke-later pave site revoke rbx --effective-from 2100-01-01T00:00:00Z --json
json revoke-later 'o["effective_from"] == "'"$from"'"'
expect 0 revoke-later-text pave site revoke rbx --effective-from 2100-01-01T00:00:00Z
says revoke-later-text out "site rbx is revoked from $from on: it was withdrawn from then on already, and that counts, not 2100-01-01T00:00:00Z"
expect 3 create-refused pave volume create v3 --size 256MiB --policy secnumcloud-fr
says create-refused err "secnumcloud-fr needs 3 replicas on 3 distinct campuses, only 2 are eligible"
says create-refused err "rbx (revocations"
expect 0 map-revoked pave volume map v1 --json
json map-revoked 'all(c["state"] == "degraded" and [r["state"] for r in c["replicas"] if r["site"] == "rbx"] == ["quarantined"] for c in o["chunks"])'
expect 3 check-revoked pave policy check --policy secnumcloud-fr --site "$dir/evidence/site-rbx.dsse.json" \
	--revocations "$dir/evidence/revocations.dsse.json" --root "$dir/evidence/root.dsse.json"
says check-revoked out "rbx is refused under secnumcloud-fr"
says check-revoked out "revocations: revocations.withdrawals.rbx is "
says check-revoked out "must be: no withdrawal in effect (revocations version "
# Every verdict with rule, field, value, bound and document, for people as for programs.
expect 0 show-revoked pave volume show v1
says show-revoked out "quarantined"
says show-revoked out "rbx fails revocations: revocations.withdrawals.rbx is 20"
says show-revoked out ": a test, the bound is no withdrawal in effect (revocations version "
says show-revoked out "WHICH IS"
expect 0 show-revoked-json pave volume show v1 --json
json show-revoked-json '[(f["rule"], f["field"], f["bound"]) for f in o["sites"]["rbx"]["failed"]] == [("revocations", "revocations.withdrawals.rbx", "no withdrawal in effect")]'
json show-revoked-json 'all(f["value"].endswith(": a test") and f["source"].startswith("revocations version ") for f in o["sites"]["rbx"]["failed"])'
json show-revoked-json 'all(o["sites"][s]["until"] and o["sites"][s]["until_field"] and o["sites"][s]["until_source"] for s in ("par", "lyo"))'
# What was so at a time: the ledger is asked; before its beginning there is nothing to tell.
expect 0 where pave audit where v1 --json
json where 'sorted(c["site"] for c in o["copies"]) == ["lyo", "par", "rbx"] and "nor anything about the law" in o["proves"]'
json where '{c["site"]: c["withdrawn_from"] for c in o["copies"]} == {"par": None, "lyo": None, "rbx": "'"$from"'"}'
expect 0 where-text pave audit where v1
says where-text out "TAINTED"
says where-text out "copy, site withdrawn"
says where-text out "node rbx-1: the certificate of site rbx is withdrawn from $from on"
says where-text out "It does not prove that the certificates are true"
expect 1 where-before pave audit where v1 --at 2020-01-01T00:00:00Z
says where-before err "it begins at 20"
expect 2 where-when pave audit where v1 --at yesterday
expect 2 where-future pave audit where v1 --at 2200-01-01T00:00:00Z
says where-future err "after now"
expect 2 where-foreign pave audit where v1 --from 2020-01-01T00:00:00Z
says where-foreign err "it has no option --from"
expect 2 verify-foreign pave audit verify "$top/ledger" --out "$top/x"
says verify-foreign err "it has no option --out"
expect 0 export pave audit export --out "$top/ledger" --json
expect 0 where-file pave audit where v1 --file "$top/ledger" --json
json where-file 'o["not_told_after"] is not None and o["not_told_after"] < o["at"]'
expect 0 where-now pave audit where v1 --json
json where-now 'o["not_told_after"] is None'
json where-now 'o["same_name"] == [] and o["contradictions"] == 0'
expect 0 report-file pave audit report v1 --file "$top/ledger" --out "$top/report.html" --json
json report-file 'o["not_told_after"] is not None and o["not_told_after"] < o["to"]'
count=$((count + 1))
grep -q "What came after 20.* is not in the file" "$top/report.html" || { bad=$((bad + 1)); echo "FAIL report-file: the page does not say when the file ends"; }
expect 0 report-now pave audit report v1 --json
json report-now 'o["not_told_after"] is None'
json report-now 'any(e["kind"] == "revocations" and e["text"].endswith(", site rbx withdrawn from '"$from"'") for e in o["events"])'
json report-now '{n["site"]: n["withdrawn_from"] for n in o["nodes"]} == {"par": None, "lyo": None, "rbx": "'"$from"'"}'
count=$((count + 1))
grep -q "1, withdrawn from $from<" "$top/report.html" || { bad=$((bad + 1)); echo "FAIL report-file: the page does not say that rbx is withdrawn"; }
expect 0 report-stdout env -C "$top/empty" pave audit report v1 --out -
says report-stdout out "<!doctype html>"
expect 2 report-both env -C "$top/empty" pave audit report v1 --out - --json
expect 1 where-full bash -c 'pave audit where v1 --json >/dev/full'
# A name that was used before: of whom this tells, and of whom not.
expect 0 where-again pave audit where large --json
json where-again 'o["deleted"] and len(o["same_name"]) == 1 and o["same_name"][0] < o["id"]'
expect 0 where-again-text pave audit where large
says where-again-text out "others of this name were deleted, of which this tells nothing: #"
expect 1 report-full pave audit report v1 --out /dev/full
says report-full err "No space left"
# Names are offered as the cluster has them, and what a "@" has broken apart is whole again.
offers pave volume show "" = v1
offers pave attach "" = v1
offers pave volume diff v1@s "" = v1
offers pave --cluster "$dir" audit where "" = v1
offers pave node drain "" = par-1 lyo-1 rbx-1
offers pave node device list "" = par-1
offers pave scrub start "" = rbx-1
offers pave site revoke "" = par lyo rbx
offers pave attach v1 --transport "" = tcp
offers pave policy show "" = hds mine
offers pave volume create v --policy "" = hds mine
expect 1 where-no-volume pave audit where v9
expect 2 report-nowhere pave audit report v1
expect 2 report-backwards pave audit report v1 --json --from 2021-01-01T00:00:00Z --to 2020-01-01T00:00:00Z
says report-backwards err "--from is not before --to"
expect 1 verify-nothing pave audit verify "$top/missing" --root "$dir/evidence/root.dsse.json"
expect 1 verify-noise pave audit verify "$dir/evidence/root.dsse.json" --root "$dir/evidence/root.dsse.json"
says verify-noise err "it is no exported ledger"
# Nodes and moves: what cannot be done is told with the way out.
expect 2 drain-whom pave node drain
expect 1 drain-nobody pave node drain par-9
says drain-nobody err "pave node list"
expect 1 evacuate-nothing pave site evacuate nowhere
says evacuate-nothing err "pave node list"
expect 1 remove-running pave node remove par-1
says remove-running err "stop its pave-node first"
expect 0 evacuate pave site evacuate lyo --json
json evacuate 'o == {"site": "lyo", "drain": True}'
for _ in $(seq 200); do
	pave rebalance status --json >"$top/out" 2>"$top/err" && grep -q 'volume v1, chunk' "$top/out" && break
	sleep 0.1
done
expect 0 stuck pave rebalance status
says stuck out "copies must leave and cannot; volume v1, chunk 0 on node "
says stuck out "no other node is up, without trouble, eligible, not full, and goes together with the other copies: pave node add, or undrain one"
expect 0 stuck-plan pave rebalance plan
says stuck-plan out "copies must leave and cannot"
count=$((count + 1))
! grep -q "Nothing has to move" "$top/out" || { bad=$((bad + 1)); echo "FAIL stuck-plan: nothing has to move, and something must"; }
expect 0 draining pave node list
says draining out "up, draining"
expect 0 evacuate-undo pave site evacuate lyo --undo
expect 2 rate pave rebalance set --rate 0
expect 2 grace pave rebalance set --replace-after 10ms
expect 2 set-nothing pave rebalance set
expect 0 set pave rebalance set --rate 64MiB --replace-after 20m --json
expect 0 set-is-told pave rebalance status --json
json set-is-told 'o["rate_bytes_per_s"] == 64 << 20 and o["replace_after_s"] == 1200'
for action in pause resume cancel; do
	expect 0 "$action" pave rebalance $action --json
	json "$action" 'o == {"action": "'$action'"}'
done
# (A refused attachment leaves its memory to the end of the process, which LeakSanitizer would make another exit code.)
expect 3 host-refused env ASAN_OPTIONS=detect_leaks=0 pave attach v1 --nbd "unix:$top/v1.sock" --detach ${PAVE_TEST_TRANSPORT:+--transport $PAVE_TEST_TRANSPORT} --site rbx
expect 0 revoke-two pave site revoke lyo
expect 3 attach-two pave attach v1 --nbd "unix:$top/v1.sock" --detach
says attach-two err "lyo-1: not in the permit"
says attach-two err "(why: pave volume show v1)"
expect 0 restore-two pave site refresh --site lyo=1
# A restart revives nothing, and the refreshed snapshot keeps the withdrawal.
expect 0 down pave dev down --dir "$dir"
expect 0 down-status pave dev status --dir "$dir" --json
json down-status 'not o["running"] and all(p["pid"] is None for p in o["processes"])'
expect 4 unreachable pave status
says unreachable err "pave dev up"
expect 0 up-revoked pave dev up --dir "$dir" --json
json up-revoked '[p["address"] for p in o["processes"]] == [p["address"] for p in json.load(open("'"$top/before"'"))["processes"]]'
expect 0 still-revoked pave site list --json
json still-revoked '[s["revoked"] for s in o["sites"] if s["site"] == "rbx"] == [True]'
expect 0 kept pave volume show v1 --json
json kept 'o["generation"] >= 1 and o["sites"]["rbx"]["eligible"] == False'
expect 0 restore pave site refresh --site rbx=1
expect 0 restored pave site show rbx
says restored out "under secnumcloud-fr: eligible"

# -- a site joins; what was killed comes back
expect 0 join pave dev up --dir "$dir" --sites mrs
says join out "mrs-1"
expect 0 joined pave node list --json
json joined 'sum(n["state"] == "up" for n in o["nodes"]) == 4'
pid=$(cut -d' ' -f1 "$dir/run/lyo-1.pid")
kill -9 "$pid"
for _ in $(seq 100); do
	pave node list --json | grep -q '"state": "down"' && break
	sleep 0.1
done
expect 0 scrub-some pave scrub start --json
json scrub-some 'o["not_told"] == ["lyo-1"] and "lyo-1" not in o["nodes"]'
expect 0 scrub-some-text pave scrub start
says scrub-some-text out "Not connected, and not told: lyo-1"
expect 0 up-killed pave dev up --dir "$dir" --json
json up-killed '[p["pid"] for p in o["processes"] if p["name"] == "lyo-1"] not in ([None], ['"$pid"'])'
# A node that has lost its driver and its lease says so once, and when it is over.
silent=$(grep -c "no answer of the placement driver" "$dir/log/par-1.log")
over=$(grep -c "the placement driver answers again" "$dir/log/par-1.log")
# once NAME WORDS COUNT: waits until its log has said so once more.
once() {
	count=$((count + 1))
	for _ in $(seq 600); do
		[ "$(grep -c "$2" "$dir/log/par-1.log")" -eq $(($3 + 1)) ] && return
		sleep 0.1
	done
	bad=$((bad + 1))
	echo "FAIL $1: its log does not say once more: $2"
}
kill -9 "$(cut -d' ' -f1 "$dir/run/pd.pid")"
once silent "no answer of the placement driver" "$silent"
expect 0 up-silent pave dev up --dir "$dir"
once heard "the placement driver answers again" "$over"
# A snapshot that ran out revokes every site: said with the way out, and whole.
expect 0 short pave site refresh --valid-for 1s
sleep 1.1
expect 0 stale pave status
says stale out "so every site counts as revoked until there is another: pave site refresh"
says stale out "(the time of the check)"
expect 0 fresh pave site refresh --valid-for 24h

expect 0 up-later pave dev up --dir "$dir" --device-size 600MiB --permit-lifetime 4s
says up-later err "--device-size is for nodes that are new"
says up-later err "--permit-lifetime counts once the driver is started again"
# Whoever started them was ended before it had noted them: they are found all the same, by up and by down.
expect 0 up-noted pave dev status --dir "$dir" --json
cp "$top/out" "$top/before"
rm "$dir/run/pd.pid" "$dir/run/lyo-1.pid"
expect 0 up-forgotten pave dev up --dir "$dir" --json
json up-forgotten '[p["pid"] for p in o["processes"]] == [p["pid"] for p in json.load(open("'"$top/before"'"))["processes"]]'
# One that has only just been started is waited for.
pid=$(cut -d' ' -f1 "$dir/run/pd.pid")
mapfile -d '' args <"/proc/$pid/cmdline"
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
(exec -a pave-pd bash -c 'sleep 2; exec "$0" "$@"' "$build/tools/pave-pd" "${args[@]:1}") >>"$dir/log/pd.log" 2>&1 &
while [ "$(head -c 7 "/proc/$!/cmdline")" != pave-pd ]; do sleep 0.1; done
expect 0 up-starting pave dev up --dir "$dir" --json
json up-starting '[p["pid"] for p in o["processes"] if p["name"] == "pd"] == ['"$!"']'
rm "$dir/run/pd.pid" "$dir/run/lyo-1.pid"

# -- several at once
# at_once COUNT NAME COMMAND...: each of them is done; what they say is in $top/at-once.
at_once() {
	local n=$1 name=$2 pids= i
	shift 2
	rm -f "$top/at-once"
	for i in $(seq "$n"); do
		"${@//%/$i}" >>"$top/at-once" 2>&1 &
		pids="$pids $!"
	done
	count=$((count + 1))
	for i in $pids; do
		wait "$i" || { bad=$((bad + 1)); echo "FAIL $name: not done by one: $(cat "$top/at-once")"; }
	done
}
# Two contents of one version would put every site into quarantine.
for _ in 1 2 3 4 5; do
	at_once 8 refresh-at-once pave site refresh
done
at_once 6 revoke-at-once pave site revoke mrs --effective-from 2100-01-01T00:00:00Z --reason "%"
expect 0 not-disputed pave site list --json
json not-disputed 'not any(f["rule"] == "certificate" for s in o["sites"] for p in s["policies"].values() for f in p["failed"])'
# A withdrawal that takes effect later is told before it does.
json not-disputed '[(s["revoked"], s["revoked_from"]) for s in o["sites"] if s["site"] == "mrs"] == [(False, "2100-01-01T00:00:00Z")]'
expect 0 revoked-later-list pave site list
says revoked-later-list out "from 2100-01-01T00:00:00Z"
expect 0 revoked-later-show pave site show mrs
says revoked-later-show out "revoked     from 2100-01-01T00:00:00Z on, not yet: "
count=$((count + 1))
[ "$(grep -o "snapshot version [0-9]*" "$top/at-once" | sort -u | wc -l)" = 6 ] || { bad=$((bad + 1)); echo "FAIL revoke-at-once: $(cat "$top/at-once")"; }
# What one adds, another does not take out again.
at_once 4 add-at-once pave node add "par-1%" --site par
count=$((count + 1))
python3 - "$dir/cluster.json" <<'EOF' || { bad=$((bad + 1)); echo "FAIL add-at-once: $(cat "$dir/cluster.json")"; }
import json, sys
sys.exit(0 if {f"par-1{i}" for i in range(1, 5)} <= {n["node"] for n in json.load(open(sys.argv[1]))["nodes"]} else 1)
EOF
# One that was removed is gone from it, and may come again under its name.
expect 0 remove-added pave node remove par-14
expect 0 removed-status pave dev status --json
json removed-status '{"par-13", "par-1"} <= {p["name"] for p in o["processes"]} and "par-14" not in {p["name"] for p in o["processes"]}'
for _ in $(seq 300); do
	pave node list --json >"$top/out" && ! grep -q par-14 "$top/out" && break
	sleep 0.1
done
expect 0 add-removed pave node add par-14 --site par
expect 2 grace-long pave rebalance set --replace-after 1000000d
says grace-long err "1s to 49710d"
# A key that is not there, or not for whoever asks.
mv "$dir/authority/authority-1.pem" "$top/authority-1.pem"
expect 1 keyless pave site refresh
says keyless err "$dir/authority has no key of the role authority that can be read"
mv "$top/authority-1.pem" "$dir/authority/authority-1.pem"

# -- a cluster whose directory lies in that of another: neither is taken for the other
expect 0 around-up pave dev up --dir "$top" --sites par --device-size 400MiB --json
json around-up '[p["name"] for p in o["processes"]] == ["pd", "par-1"] and o["pd"] != json.load(open("'"$dir/cluster.json"'"))["pd"]'
expect 0 around-attach pave attach v1 --nbd unix:$top/v1.sock --detach
expect 0 around-down pave dev down --dir "$top/./c/.." --json
json around-down 'o["stopped"] == 2'
expect 0 around-status pave dev status --dir "$dir" --json
json around-status 'all(p["pid"] for p in o["processes"] if p["name"] in ("par-1", "mrs-1", "attach:v1")) and "attach:v1" in [p["name"] for p in o["processes"]]'

# Nor is a copy of a directory the cluster that it was copied from.
mkdir "$top/copy"
cp -r "$dir/cluster.json" "$dir/run" "$top/copy"
expect 0 copy-status pave dev status --dir "$top/copy" --json
json copy-status 'all(p["pid"] is None for p in o["processes"])'

# -- one that cannot start is told, and does not keep the others from it
for n in par-1 mrs-1; do
	pid=$(cut -d' ' -f1 "$dir/run/$n.pid")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
done
cp "$dir/nodes/par-1/trust.json" "$top/trust.json"
echo nothing >"$dir/nodes/par-1/trust.json"
expect 1 up-without-one pave dev up --dir "$dir"
says up-without-one err "par-1 was not started (it ended); its log $dir/log/par-1.log ends with: pave-node: "
expect 0 without-one pave dev status --dir "$dir" --json
json without-one '{p["name"]: p["pid"] is None for p in o["processes"] if p["name"] in ("par-1", "mrs-1")} == {"par-1": True, "mrs-1": False}'
cp "$top/trust.json" "$dir/nodes/par-1/trust.json"

# -- and the end
expect 0 down-last pave dev down --dir "$dir"
# A directory that holds something else gets no index.
expect 1 index-in-node pave-inspect "$dir/nodes/mrs-1/device" --rebuild-index "$dir/nodes/mrs-1"
says index-in-node err "the directory is not empty"
count=$((count + 1))
[ ! -e "$dir/nodes/mrs-1/CURRENT" ] || { bad=$((bad + 1)); echo "FAIL index-in-node: there is an index now"; }
expect 0 index-new pave-inspect "$dir/nodes/mrs-1/device" --rebuild-index "$top/index"
# A size that cannot be used leaves no file behind, which would be in the way of the right one.
expect 2 device-small pave-node --name n-1 --site par --pd 127.0.0.1:1 --root "$dir/evidence/root.dsse.json" --dir "$top/n-1" --device "$top/n-1/device" --device-size 50MiB
says device-small err "at least 98MiB"
count=$((count + 1))
[ ! -e "$top/n-1/device" ] || { bad=$((bad + 1)); echo "FAIL device-small: its file is there"; }
count=$((count + 1))
for f in /proc/[0-9]*/cmdline; do
	p=${f#/proc/}
	p=${p%/cmdline}
	[ "$p" != $$ ] && { cat "$f" | tr '\0' '\n'; } 2>/dev/null | grep -qF "$dir/" && { bad=$((bad + 1)); echo "FAIL end: process $p still names $dir"; }
done
echo "$count checks, $bad failed"
[ "$bad" -eq 0 ]
