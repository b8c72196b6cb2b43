/* file.c */
typedef int disk_placeholder_t;
