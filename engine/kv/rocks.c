/* rocks.c */
typedef int kv_placeholder_t;
