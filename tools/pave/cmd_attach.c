/* pave attach, pave detach: starts pave-attach and says how to use what it serves; asks the driver
 * to end an attachment.
 *
 * In the foreground the command stays, and passes SIGTERM and SIGINT on; with --detach it leaves
 * the attachment running, with a session and a log of its own, once it serves. */
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
	bool read_only, detach, force;
	struct cluster_ref cluster;
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

static int say_ready(const struct attach_options *o, const char *uri)
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
	if (cli.json)
		return cmd_print_json(json_pack(
		    "{s:s, s:s, s:i, s:b, s:s, s:s}", "volume", o->volume, "uri", uri, "pid",
		    (int)child, "read_only", o->read_only, "qemu", qemu, "libvirt", libvirt));
	printf("volume %s: attached%s, pid %d\n", o->volume, o->read_only ? " read-only" : "",
	       (int)child);
	printf("  NBD      %s\n  qemu     %s\n  libvirt  %s\n", uri, qemu, libvirt);
	fflush(stdout);
	return 0;
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

/* What the child said in its log before it gave up. */
static void show_log(const struct attach_options *o, off_t from)
{
	char buf[4096];
	ssize_t n;
	int fd = open(o->log, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	lseek(fd, from, SEEK_SET);
	while ((n = read(fd, buf, sizeof buf)) > 0)
		if (write(STDERR_FILENO, buf, (size_t)n) < 0)
			break;
	close(fd);
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

static int serve(const struct attach_options *o)
{
	char line[1200] = "";
	struct stat st = {0};
	FILE *out = NULL;
	int rc;

	if (o->detach && stat(o->log, &st) != 0)
		st.st_size = 0;
	signal(SIGTERM, pass_on);
	signal(SIGINT, o->detach ? SIG_DFL : pass_on);
	rc = start_child(o, &out);
	if (rc != 0) {
		fprintf(stderr, "pave attach: %s\n", err_text(rc));
		return 1;
	}
	if (fgets(line, sizeof line, out) == NULL || strncmp(line, "ready ", 6) != 0) {
		fclose(out);
		rc = exit_code_of(child);
		if (o->detach)
			show_log(o, st.st_size);
		return rc != 0 ? rc : 1;
	}
	line[strcspn(line, "\n")] = '\0';
	rc = say_ready(o, line + 6);
	fclose(out);
	return o->detach ? rc : exit_code_of(child);
}

/* -- the commands ---------------------------------------------------------------------------- */

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
	    {"nbd", required_argument, NULL, 'n'},
	    {"read-only", no_argument, NULL, 'R'},
	    {"detach", no_argument, NULL, 'd'},
	    {"force", no_argument, NULL, 'F'},
	    {"site", required_argument, NULL, 's'},
	    {"root", required_argument, NULL, 'r'},
	    {"state", required_argument, NULL, 'S'},
	    {"transport", required_argument, NULL, 't'},
	    {0},
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
