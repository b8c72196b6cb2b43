/* node.c */
typedef int node_placeholder_t;
