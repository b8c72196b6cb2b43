/* store.c */
typedef int store_placeholder_t;
