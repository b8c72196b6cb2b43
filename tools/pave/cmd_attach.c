/* pave attach, pave detach: starts pave-attach and says how to use what it serves; asks the driver
 * to end an attachment.
 *
 * In the foreground the command stays, and passes SIGTERM and SIGINT on; with --detach it leaves
 * the attachment running, with a session and a log of its own, once it serves. With --migrate there
 * are two moments to wait for: it is prepared (and then left running, with --detach), and, after
 * SIGUSR1, which is passed on too, it serves. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "tools/pave/client.h"
#include "tools/pave/cmd.h"

#define DETACH_CALL_MS 90000u
#define PATH_SIZE      8500u

struct attach_options {
	const char *volume, *nbd, *site, *root, *state, *transport;
	bool read_only, detach, force, migrate;
	struct cluster_ref cluster;
	char nbd_path[PATH_SIZE];
	char dir[PATH_SIZE]; /* of this attachment: what evidence it has seen, its log */
	char log[PATH_SIZE + 16];
};

static pid_t child;

static void pass_on(int signal_number)
{
	if (child > 0)
		kill(child, signal_number);
}

/* -- what people paste ----------------------------------------------------------------------- */

/* The <source> of libvirt for what the URI names. */
static void libvirt_source(const char *uri, const char *volume, char *buf, size_t size)
{
	const char *socket = strstr(uri, "?socket=");
	const char *host = strstr(uri, "://");
	const char *slash = host != NULL ? strrchr(uri, '/') : NULL;
	const char *colon = slash;

	if (socket != NULL) {
		snprintf(buf, size,
			 "<source protocol='nbd' name='%s'><host transport='unix' "
			 "socket='%s'/></source>",
			 volume, socket + strlen("?socket="));
		return;
	}
	while (colon != NULL && *colon != ':' && colon > uri)
		colon--;
	snprintf(buf, size,
		 "<source protocol='nbd' name='%s'><host name='%.*s' port='%.*s'/></source>",
		 volume, host == NULL ? 0 : (int)(colon - host - 3), host == NULL ? "" : host + 3,
		 host == NULL ? 0 : (int)(slash - colon - 1), host == NULL ? "" : colon + 1);
}

/* The command goes on, and whoever reads this waits for it. (Of a failure main() tells.) */
static int said(int rc)
{
	fflush(stdout);
	return rc;
}

static int say_prepared(const struct attach_options *o)
{
	if (cli.json) {
		json_t *j = json_pack("{s:s, s:i, s:b, s:b}", "volume", o->volume, "pid",
				      (int)child, "prepared", 1, "read_only", o->read_only);

		return said(cmd_print_json(j));
	}
	printf("volume %s: prepared, pid %d; kill -USR1 %d takes it over\n", o->volume, (int)child,
	       (int)child);
	return said(0);
}

/* pause: for how many milliseconds at most nobody served it; NULL: it was not taken over. */
static int say_ready(const struct attach_options *o, const char *uri, const char *pause)
{
	char qemu[1200], source[800], libvirt[1200];

	snprintf(
	    qemu, sizeof qemu,
	    "-drive "
	    "file=%.512s,format=raw,if=virtio,cache=none,discard=unmap,werror=stop,rerror=stop",
	    uri);
	libvirt_source(uri, o->volume, source, sizeof source);
	snprintf(libvirt, sizeof libvirt,
		 "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' "
		 "discard='unmap' error_policy='stop'/>%s<target dev='vda' bus='virtio'/></disk>",
		 source);
	if (cli.json) {
		json_t *j = json_pack("{s:s, s:s, s:i, s:b, s:s, s:s}", "volume", o->volume, "uri",
				      uri, "pid", (int)child, "read_only", o->read_only, "qemu",
				      qemu, "libvirt", libvirt);

		if (pause != NULL)
			json_object_set_new(j, "pause_ms", json_real(strtod(pause, NULL)));
		return said(cmd_print_json(j));
	}
	printf("volume %s: attached%s, pid %d\n", o->volume, o->read_only ? " read-only" : "",
	       (int)child);
	if (pause != NULL)
		printf("  taken over, after a pause of %s ms at most\n", pause);
	printf("  NBD      %s\n  qemu     %s\n  libvirt  %s\n", uri, qemu, libvirt);
	return said(0);
}

/* -- the child ------------------------------------------------------------------------------- */

static void run_child(const struct attach_options *o, int out)
{
	char program[4200], dir[4096];
	const char *argv[20];
	struct error err;
	int n = 0;
	int log;

	if (cmd_program_dir(dir, sizeof dir, &err) != 0) {
		fprintf(stderr, "pave attach: %s\n", err.text);
		_exit(1);
	}
	snprintf(program, sizeof program, "%s/pave-attach", dir);
	argv[n++] = program;
	argv[n++] = o->volume;
	argv[n++] = "--pd";
	argv[n++] = o->cluster.pd;
	argv[n++] = "--root";
	argv[n++] = o->root;
	argv[n++] = "--dir";
	argv[n++] = o->dir;
	argv[n++] = "--nbd";
	argv[n++] = o->nbd;
	argv[n++] = "--site";
	argv[n++] = o->site;
	if (o->read_only)
		argv[n++] = "--read-only";
	if (o->force)
		argv[n++] = "--force";
	if (o->migrate)
		argv[n++] = "--migrate";
	if (o->transport != NULL) {
		argv[n++] = "--transport";
		argv[n++] = o->transport;
	}
	if (cli.insecure)
		argv[n++] = "--insecure";
	argv[n] = NULL;
	dup2(out, STDOUT_FILENO);
	if (o->detach) {
		setsid();
		log = open(o->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (log >= 0)
			dup2(log, STDERR_FILENO);
		log = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (log >= 0)
			dup2(log, STDIN_FILENO);
	}
	execv(program, (char *const *)(uintptr_t)argv);
	fprintf(stderr, "pave attach: %s: %s\n", program, strerror(errno));
	_exit(1);
}

/* What the child said before it gave up, which is in the log from there on. What stands behind a
 * time there, of this attachment or of another that writes into the same log, stays there, if the
 * child said anything else. */
static void show_log(const struct attach_options *o, off_t from)
{
	char line[4096];
	bool said = false;
	FILE *f = fopen(o->log, "re");

	if (f == NULL)
		return;
	for (int all = 0; all < 2 && !said; all++) {
		fseeko(f, from, SEEK_SET);
		while (fgets(line, sizeof line, f) != NULL) {
			if (all == 0 && line[0] >= '0' && line[0] <= '9')
				continue;
			fputs(line, stderr);
			said = true;
		}
	}
	fclose(f);
}

static int exit_code_of(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Starts the child and waits for its "ready URI". */
static int start_child(const struct attach_options *o, FILE **ret_out)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) != 0)
		return -errno;
	child = fork();
	if (child < 0) {
		close(fds[0]);
		close(fds[1]);
		return -errno;
	}
	if (child == 0)
		run_child(o, fds[1]);
	close(fds[1]);
	*ret_out = fdopen(fds[0], "r");
	return *ret_out != NULL ? 0 : -ENOMEM;
}

/* "prepared", or "ready URI", or of one that was taken over "ready URI MS". False: something else,
 * or nothing. */
static bool wait_for(FILE *out, const char *word, char *line, size_t size)
{
	if (fgets(line, (int)size, out) == NULL || strncmp(line, word, strlen(word)) != 0)
		return false;
	line[strcspn(line, "\n")] = '\0';
	return true;
}

static int say_all(const struct attach_options *o, FILE *out)
{
	char line[1200] = "";
	char *pause = NULL;

	if (o->migrate && !wait_for(out, "prepared", line, sizeof line))
		return -EPROTO;
	if (o->migrate && say_prepared(o) != 0)
		return 1;
	if (o->migrate && o->detach)
		return 0;
	if (!wait_for(out, "ready ", line, sizeof line))
		return -EPROTO;
	if (o->migrate)
		pause = strrchr(line, ' ');
	if (pause != NULL)
		*pause++ = '\0';
	return say_ready(o, line + 6, pause);
}

static int serve(const struct attach_options *o)
{
	struct stat st = {0};
	FILE *out = NULL;
	int rc;

	if (o->detach && stat(o->log, &st) != 0)
		st.st_size = 0;
	signal(SIGTERM, pass_on);
	signal(SIGINT, o->detach ? SIG_DFL : pass_on);
	if (o->migrate)
		signal(SIGUSR1, pass_on);
	rc = start_child(o, &out);
	if (rc != 0) {
		fprintf(stderr, "pave attach: %s\n", err_text(rc));
		return 1;
	}
	rc = say_all(o, out);
	fclose(out);
	if (rc == -EPROTO) {
		rc = exit_code_of(child);
		if (o->detach)
			show_log(o, st.st_size);
		/* One that only waits to take over may be told to end. */
		return rc != 0 || o->migrate ? rc : 1;
	}
	return o->detach ? rc : exit_code_of(child);
}

/* -- the commands ---------------------------------------------------------------------------- */

/* Whoever reads the lines for qemu and libvirt stands somewhere else. */
static int find_socket(struct attach_options *o)
{
	char here[4096];
	struct error err;

	if (strncmp(o->nbd, "unix:", 5) != 0 || o->nbd[5] == '/' || o->nbd[5] == '\0')
		return 0;
	if (getcwd(here, sizeof here) == NULL) {
		error_set(&err, -errno, "the working directory: %s", strerror(errno));
		return cmd_fail(&err);
	}
	snprintf(o->nbd_path, sizeof o->nbd_path, "unix:%s/%.4000s", here, o->nbd + 5);
	o->nbd = o->nbd_path;
	return 0;
}

static int find_places(struct attach_options *o)
{
	const char *dir = o->cluster.dir;
	struct error err;
	int rc = cmd_cluster(&o->cluster, &err);
	char parent[PATH_SIZE];

	if (rc != 0)
		return cmd_fail(&err);
	if (o->root == NULL)
		o->root = o->cluster.root;
	if (o->site == NULL)
		o->site = o->cluster.site;
	if (o->root[0] == '\0' || (dir[0] == '\0' && o->state == NULL))
		return cmd_usage_error("with the address of a driver, --root FILE (the trust root) "
				       "and --state DIR (where "
				       "this host remembers the evidence it has seen) are needed");
	snprintf(parent, sizeof parent, "%s", o->state != NULL ? o->state : dir);
	if (o->state == NULL)
		snprintf(parent, sizeof parent, "%s/attach", dir);
	snprintf(o->dir, sizeof o->dir, "%.8000s/%s", parent, o->volume);
	snprintf(o->log, sizeof o->log, "%s/attach.log", o->dir);
	if ((mkdir(parent, 0755) != 0 && errno != EEXIST) ||
	    (mkdir(o->dir, 0755) != 0 && errno != EEXIST)) {
		error_set(&err, -errno, "directory %.500s: %s", o->dir, strerror(errno));
		return cmd_fail(&err);
	}
	return 0;
}

/* NAME, or NAME@SNAPSHOT. */
static bool is_volume(const char *name)
{
	const char *at = strchr(name, '@');
	char volume[NAME_SIZE_MAX];

	if (at == NULL)
		return text_is_name(name);
	if (strlen(name) >= NAME_SIZE_MAX)
		return false;
	snprintf(volume, sizeof volume, "%.*s", (int)(at - name), name);
	return text_is_name(volume) && text_is_name(at + 1);
}

int cmd_attach(int argc, char **argv)
{
	static const struct option options[] = {
	    {"nbd", required_argument, NULL, 'n'},	 {"read-only", no_argument, NULL, 'R'},
	    {"detach", no_argument, NULL, 'd'},		 {"force", no_argument, NULL, 'F'},
	    {"migrate", no_argument, NULL, 'm'},	 {"site", required_argument, NULL, 's'},
	    {"root", required_argument, NULL, 'r'},	 {"state", required_argument, NULL, 'S'},
	    {"transport", required_argument, NULL, 't'}, {0},
	};
	static struct attach_options o;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n':
			o.nbd = optarg;
			break;
		case 'R':
			o.read_only = true;
			break;
		case 'd':
			o.detach = true;
			break;
		case 'F':
			o.force = true;
			break;
		case 'm':
			o.migrate = true;
			break;
		case 's':
			o.site = optarg;
			break;
		case 'r':
			o.root = optarg;
			break;
		case 'S':
			o.state = optarg;
			break;
		case 't':
			o.transport = optarg;
			break;
		default:
			return cmd_usage_error("unknown option, or one without its value");
		}
	}
	o.volume = cmd_operand(argc, argv, "volume");
	if (o.volume == NULL)
		return 2;
	if (!is_volume(o.volume))
		return cmd_usage_error("'%s' is not a volume's name: a-z 0-9 . _ - are possible",
				       o.volume);
	if (o.nbd == NULL)
		return cmd_usage_error("--nbd unix:PATH or --nbd HOST:PORT is missing");
	rc = find_socket(&o);
	if (rc == 0)
		rc = find_places(&o);
	return rc != 0 ? rc : serve(&o);
}

int cmd_detach(int argc, char **argv)
{
	static const struct option options[] = {{0}};
	Pave__V1__VolumeDetach detach = PAVE__V1__VOLUME_DETACH__INIT;
	Pave__V1__Control m = PAVE__V1__CONTROL__INIT;
	Pave__V1__Control *reply = NULL;
	struct error err;
	const char *name;

	if (getopt_long(argc, argv, "", options, NULL) != -1)
		return cmd_usage_error("unknown option");
	name = cmd_operand(argc, argv, "volume");
	if (name == NULL)
		return 2;
	detach.name = (char *)(uintptr_t)name;
	m.body_case = PAVE__V1__CONTROL__BODY_VOLUME_DETACH;
	m.volume_detach = &detach;
	if (client_ask(&m, PAVE__V1__CONTROL__BODY_EMPTY, DETACH_CALL_MS, &reply, &err) != 0)
		return cmd_fail(&err);
	pave__v1__control__free_unpacked(reply, NULL);
	if (cli.json)
		return cmd_print_json(json_pack("{s:s, s:b}", "volume", name, "detached", 1));
	printf("volume %s: detached\n", name);
	return 0;
}
