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
expect 1 no-cluster env -C "$top" pave status
says no-cluster err PAVE_CLUSTER
expect 4 nobody-there pave --cluster 127.0.0.1:1 status
says nobody-there err "127.0.0.1:1"
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
offers pave policy check -- = --policy --site --revocations --root --at --insecure
offers pave evidence sign -- = --key --type --out
offers pave node device "" = list add retire
offers pave completion "" = bash
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

# -- attached
expect 0 attach pave attach v1 --nbd "unix:$top/v1.sock" --detach ${PAVE_TEST_TRANSPORT:+--transport $PAVE_TEST_TRANSPORT}
expect 0 attached pave volume list --json
json attached '[v["state"] for v in o["volumes"]] == ["attached"]'
expect 1 in-use pave volume delete v1
says in-use err "pave detach v1"
expect 0 with-attachment pave dev status --dir "$dir"
says with-attachment out "attach:v1"
expect 0 detach pave detach v1
expect 0 detached pave volume list --json
json detached '[v["state"] for v in o["volumes"]] == ["detached"]'

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
expect 0 revoke pave site revoke rbx --reason "a test" --json
json revoke 'o["site"] == "rbx" and o["revocations_version"] >= 2'
expect 3 create-refused pave volume create v3 --size 256MiB --policy secnumcloud-fr
says create-refused err "secnumcloud-fr needs 3 replicas on 3 distinct campuses, only 2 are eligible"
says create-refused err "rbx (revocations"
expect 0 map-revoked pave volume map v1 --json
json map-revoked 'all(c["state"] == "degraded" and [r["state"] for r in c["replicas"] if r["site"] == "rbx"] == ["quarantined"] for c in o["chunks"])'
expect 3 check-revoked pave policy check --policy secnumcloud-fr --site "$dir/evidence/site-rbx.dsse.json" \
	--revocations "$dir/evidence/revocations.dsse.json" --root "$dir/evidence/root.dsse.json"
# (A refused attachment leaves its memory to the end of the process, which LeakSanitizer would make another exit code.)
expect 3 host-refused env ASAN_OPTIONS=detect_leaks=0 pave attach v1 --nbd "unix:$top/v1.sock" --detach ${PAVE_TEST_TRANSPORT:+--transport $PAVE_TEST_TRANSPORT} --site rbx
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
expect 0 up-killed pave dev up --dir "$dir" --json
json up-killed '[p["pid"] for p in o["processes"] if p["name"] == "lyo-1"] not in ([None], ['"$pid"'])'

# -- and the end
expect 0 down-last pave dev down --dir "$dir"
count=$((count + 1))
for f in /proc/[0-9]*/cmdline; do
	p=${f#/proc/}
	p=${p%/cmdline}
	[ "$p" != $$ ] && { cat "$f" | tr '\0' '\n'; } 2>/dev/null | grep -qF "$dir/" && { bad=$((bad + 1)); echo "FAIL end: process $p still names $dir"; }
done
echo "$count checks, $bad failed"
[ "$bad" -eq 0 ]
