/* The log of a daemon: one line an event on stderr, "TIME LEVEL module: text". Never called per
 * operation on the data path. Thread-safe: one write(2) a line. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above this level are dropped; LOG_INFO at first. */
void log_set_level(enum log_level level);

/* "error", "warn", "info", "debug". Returns 0, or -EINVAL. */
int log_level_parse(const char *text, enum log_level *ret_level);

/* A word put into every line, such as the node's name; copied, up to 63 bytes. */
void log_set_name(const char *name);

/* Lines go to sink instead of stderr (tests, simulator). NULL restores stderr. */
void log_set_sink(void (*sink)(enum log_level level, const char *line));

void log_line(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(module, ...) log_line(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...)  log_line(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...)  log_line(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_line(LOG_DEBUG, module, __VA_ARGS__)

#endif
