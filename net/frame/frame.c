/* frame.c */
typedef int frame_placeholder_t;
