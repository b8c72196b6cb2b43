/* rpc.c */
typedef int rpc_placeholder_t;
