/* Keys with values, in the order of the keys: what a simulated database holds (kv.h, etcd.h).
 * Memory: when it runs out the program ends. */
#ifndef SIM_MAP_H
#define SIM_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_entry {
	size_t key_size, value_size;
	uint8_t bytes[]; /* the key, then the value */
};

/* Zero-initialise. Read the entries freely; change them by the functions. */
struct sim_map {
	struct sim_entry **entries; /* sorted by key */
	size_t count, max;
};

struct sim_entry *sim_entry_create(const void *key, size_t key_size, const void *value,
				   size_t value_size);

/* Of bytes; a key that goes on is above one that ends. */
int sim_key_compare(const void *a, size_t a_size, const void *b, size_t b_size);

/* The first entry whose key is not below key. */
size_t sim_map_lower_bound(const struct sim_map *m, const void *key, size_t key_size);

/* NULL: there is none. */
struct sim_entry *sim_map_find(const struct sim_map *m, const void *key, size_t key_size);

/* Takes e over; it goes before one with the same key. */
void sim_map_insert(struct sim_map *m, struct sim_entry *e);

void sim_map_remove(struct sim_map *m, const void *key, size_t key_size);

/* The entries [from, to), by number. */
void sim_map_remove_range(struct sim_map *m, size_t from, size_t to);

void sim_map_deinit(struct sim_map *m);

#endif
