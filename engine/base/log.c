/* log: see log.h. */
#include "engine/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static _Atomic int max_level = LOG_INFO;
static char process_name[64];
static void (*line_sink)(enum log_level level, const char *line);

void log_set_level(enum log_level level)
{
	atomic_store(&max_level, (int)level);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (int i = 0; i <= LOG_DEBUG; i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_set_name(const char *name)
{
	snprintf(process_name, sizeof process_name, "%s", name);
}

void log_set_sink(void (*sink)(enum log_level level, const char *line))
{
	line_sink = sink;
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
	char line[2048];
	struct timespec ts;
	struct tm tm;
	size_t len;
	va_list ap;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	len = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(line + len, sizeof line - len,
				".%03ldZ %-5s %s%s%s: ", ts.tv_nsec / 1000000, level_names[level],
				process_name, process_name[0] != '\0' ? " " : "", module);
	va_start(ap, fmt);
	vsnprintf(line + len, sizeof line - len - 1, fmt, ap);
	va_end(ap);
	if (line_sink != NULL) {
		line_sink(level, line);
		return;
	}
	len = strlen(line);
	line[len++] = '\n';
	/* A log that cannot be written must not stop the data path. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}
