/* tcp.c */
typedef int tcp_placeholder_t;
