/* pd.c */
typedef int placement_placeholder_t;
