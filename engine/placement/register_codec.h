/* Between register.c and register_codec.c; nobody else's. */
#ifndef PLACEMENT_REGISTER_CODEC_H
#define PLACEMENT_REGISTER_CODEC_H

#include <protobuf-c/protobuf-c.h>

#include "engine/placement/register.h"

/* What gathers for the next commit; NULL when the register is broken. */
struct kv_batch *reg_batch(struct reg *reg);
/* Packs m into it. */
void reg_put(struct reg *reg, uint32_t family, const void *key, size_t key_size,
	     const ProtobufCMessage *m);
void reg_init(struct reg *reg, struct reactor *r, struct kv *kv);
/* Nodes of drops become nodes of the volume, which thereby are all that may hold something of it.
 * -ENOMEM. */
int reg_own_dropped(struct reg_volume *v);
void reg_count_moves(const struct reg_volume *v, int sign);
void reg_count_chunk(const struct reg_volume *v, struct reg_node *n, int sign);
void reg_count_placed(const struct reg_volume *v, int sign);
int reg_volume_link(struct reg *reg, struct reg_volume *v); /* 0 or -ENOMEM */
int reg_link_families(struct reg *reg);			    /* likewise; once all are there */
void reg_volume_free(struct reg_volume *v);
void reg_delete_node(struct reg *reg, const struct reg_node *n);
void reg_delete_volume(struct reg *reg, const struct reg_volume *v);

#endif
