/* volume.c */
typedef int volume_placeholder_t;
