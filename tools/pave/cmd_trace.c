/* pave trace: where the time of the slowest operations of a volume goes, asked of the attachment on
 * this host (engine/attach/trace.h). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/pave/cmd.h"

#define ANSWER_SIZE_MAX (256u << 10)
#define ANSWER_LATE_S	5 /* after the trace's own time */

struct trace_options {
	const char *volume, *state;
	unsigned seconds, count;
};

static const char *const parts[] = {"host queue", "network", "node queue",
				    "log",	  "answer",  "host end"};

#define PARTS (sizeof parts / sizeof parts[0])

/* -- asking ------------------------------------------------------------------------------------ */

static int find_socket(const struct trace_options *o, struct sockaddr_un *addr, struct error *err)
{
	struct cluster_ref cluster;
	char path[8500];
	int rc = 0;

	if (o->state == NULL)
		rc = cmd_cluster(&cluster, err);
	if (rc != 0)
		return rc;
	if (o->state == NULL && cluster.dir[0] == '\0')
		return error_set(err, -EINVAL,
				 "with the address of a driver, --state DIR (that `pave attach` "
				 "was given, or its --dir's parent) is needed");
	if (o->state != NULL)
		snprintf(path, sizeof path, "%s/%s/trace.sock", o->state, o->volume);
	else
		snprintf(path, sizeof path, "%s/attach/%s/trace.sock", cluster.dir, o->volume);
	if (strlen(path) >= sizeof addr->sun_path)
		return error_set(err, -ENAMETOOLONG,
				 "socket %.200s: over %zu bytes; give a shorter --state", path,
				 sizeof addr->sun_path - 1);
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(addr->sun_path, path, strlen(path) + 1);
	return 0;
}

static int read_answer(int fd, const struct trace_options *o, json_t **ret, struct error *err)
{
	const struct timeval wait = {.tv_sec = (time_t)o->seconds + ANSWER_LATE_S};
	char *buf = malloc(ANSWER_SIZE_MAX);
	size_t size = 0;
	ssize_t n = 1;
	bool silent;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	while (buf != NULL && n > 0 && size < ANSWER_SIZE_MAX) {
		n = read(fd, buf + size, ANSWER_SIZE_MAX - size);
		if (n > 0)
			size += (size_t)n;
	}
	silent = n < 0 && errno == EAGAIN;
	*ret = buf != NULL ? json_loadb(buf, size, 0, NULL) : NULL;
	free(buf);
	if (*ret == NULL && silent)
		return error_set(err, -E_UNREACHABLE,
				 "the attachment of volume %s has not answered within %lld s: it "
				 "does not serve yet (--migrate waits for SIGUSR1), or is asked by "
				 "another pave trace",
				 o->volume, (long long)wait.tv_sec);
	if (*ret == NULL)
		return error_set(err, -E_DISCONNECTED,
				 "the attachment ended before it had answered");
	return 0;
}

static int ask(const struct trace_options *o, json_t **ret, struct error *err)
{
	struct sockaddr_un addr;
	char line[64];
	int fd, rc = find_socket(o, &addr, err);

	if (rc != 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(err, -errno, "socket: %s", strerror(errno));
	snprintf(line, sizeof line, "trace %u %u\n", o->seconds, o->count);
	if (connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0 ||
	    send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		rc =
		    error_set(err, -E_UNREACHABLE, "volume %s is not attached on this host: %s: %s",
			      o->volume, addr.sun_path, strerror(errno));
	else
		rc = read_answer(fd, o, ret, err);
	close(fd);
	return rc;
}

/* -- telling ----------------------------------------------------------------------------------- */

static double member(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

static void add_parts(struct table *t, const json_t *o)
{
	for (size_t i = 0; i < PARTS; i++) {
		if (json_is_object(o))
			table_add(t, "%.1f", member(o, parts[i]));
		else
			table_add(t, "%s", "");
	}
}

static void print_answer(const json_t *answer)
{
	static const char *const titles[] = {"OPERATION",  "NODE",    "AT s",	    "TOTAL us",
					     "HOST QUEUE", "NETWORK", "NODE QUEUE", "LOG",
					     "ANSWER",	   "HOST END"};
	static const char *const kinds[] = {"reads", "writes"};
	const json_t *slowest = json_object_get(answer, "slowest");
	struct table t;
	size_t i;
	json_t *op;

	if (json_array_size(slowest) == 0) {
		puts("no operation ended meanwhile");
		return;
	}
	table_init(&t, 10, titles);
	for (unsigned c = 2; c < 10; c++)
		t.right[c] = true;
	for (unsigned k = 0; k < 2; k++) {
		const json_t *o = json_object_get(answer, kinds[k]);

		if (member(o, "told") == 0)
			continue;
		table_add(&t, "%.0f %s, mean", member(o, "told"), kinds[k]);
		table_add(&t, "%s", "");
		table_add(&t, "%s", "");
		table_add(&t, "%.1f", member(o, "mean_us"));
		add_parts(&t, json_object_get(o, "parts_us"));
	}
	json_array_foreach (slowest, i, op) {
		table_add(&t, "%s %.0f+%.0f", json_string_value(json_object_get(op, "kind")),
			  member(op, "offset"), member(op, "size"));
		table_add(&t, "%s", json_string_value(json_object_get(op, "node")));
		table_add(&t, "%.3f", member(op, "at_s"));
		table_add(&t, "%.1f", member(op, "total_us"));
		add_parts(&t, json_object_get(op, "parts_us"));
	}
	table_print(&t);
}

static bool whole(const char *text, unsigned max, unsigned *ret)
{
	char *end;
	const unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end != '\0' || n < 1 || n > max)
		return false;
	*ret = (unsigned)n;
	return true;
}

int cmd_trace(int argc, char **argv)
{
	static const struct option options[] = {
	    {"seconds", required_argument, NULL, 's'},
	    {"slowest", required_argument, NULL, 'n'},
	    {"state", required_argument, NULL, 'S'},
	    {0},
	};
	struct trace_options o = {.seconds = 10, .count = 10};
	json_t *answer = NULL;
	struct error err;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's' && !whole(optarg, 3600, &o.seconds))
			return cmd_usage_error("--seconds %s: 1 to 3600", optarg);
		if (c == 'n' && !whole(optarg, 64, &o.count))
			return cmd_usage_error("--slowest %s: 1 to 64", optarg);
		if (c == 'S')
			o.state = optarg;
		if (c == '?')
			return cmd_usage_error("see above");
	}
	o.volume = cmd_operand(argc, argv, "volume");
	if (o.volume == NULL)
		return 2;
	rc = ask(&o, &answer, &err);
	if (rc != 0)
		return cmd_fail(&err);
	if (cli.json)
		return cmd_print_json(answer);
	print_answer(answer);
	json_decref(answer);
	return 0;
}
