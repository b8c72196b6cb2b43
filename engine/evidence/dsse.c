/* dsse.c */
typedef int evidence_placeholder_t;
