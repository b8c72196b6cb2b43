/* nbd.c */
typedef int attach_placeholder_t;
