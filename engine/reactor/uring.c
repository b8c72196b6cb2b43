/* uring.c */
typedef int reactor_placeholder_t;
