/* layers: see layers.h. */
#include "engine/placement/layers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/evidence/permit.h"
#include "engine/placement/register_codec.h"
#include "register.pb-c.h"

struct reg_layer *layers_find(struct reg *reg, volume_id_t id)
{
	struct reg_layer *l;

	HASH_FIND(hh, reg->layers, &id, sizeof id, l);
	return l;
}

struct reg_layer *layers_add(struct reg *reg, volume_id_t id, volume_id_t parent, volume_id_t owner)
{
	struct reg_layer *l = calloc(1, sizeof *l);

	PRE(id != 0 && layers_find(reg, id) == NULL);
	if (l == NULL)
		return NULL;
	l->id = id;
	l->parent = parent;
	l->owner = owner;
	HASH_ADD(hh, reg->layers, id, sizeof l->id, l);
	if (l->hh.tbl == NULL) {
		free(l);
		return NULL;
	}
	return l;
}

void layers_free_all(struct reg *reg)
{
	struct reg_layer *l, *next;

	HASH_ITER (hh, reg->layers, l, next) {
		HASH_DELETE(hh, reg->layers, l);
		free(l);
	}
}

volume_id_t layers_new_id(struct reg *reg)
{
	return reg->next_volume <= UINT32_MAX ? reg->next_volume++ : 0;
}

volume_id_t layers_top(const struct reg_volume *v)
{
	return v->top != 0 ? v->top : v->id;
}

void layers_set_top(struct reg_volume *v, volume_id_t top)
{
	v->top = top;
	v->seal_wanted = v->seal_pays = false;
}

uint32_t layers_of(struct reg *reg, const struct reg_volume *v, volume_id_t *ret_ids, uint32_t max)
{
	volume_id_t id = layers_top(v);
	uint32_t count = 0;

	while (id != 0 && count < max) {
		const struct reg_layer *l = layers_find(reg, id);

		ret_ids[count++] = id;
		id = l != NULL ? l->parent : 0;
	}
	return count;
}

struct reg_layer *layers_open_below(struct reg *reg, const struct reg_volume *v)
{
	struct reg_layer *l = layers_find(reg, layers_top(v));

	while (l != NULL && l->parent != 0) {
		l = layers_find(reg, l->parent);
		if (l != NULL && !l->sealed)
			return l;
	}
	return NULL;
}

int layers_unsettled(struct reg *reg, const struct reg_volume *v, const struct reg_layer *open,
		     struct error *err)
{
	const struct reg_volume *owner = reg_volume_by_id(reg, open->owner);

	return error_set(err, -E_IN_USE,
			 "volume %s: the snapshot that it stands on is not settled yet: again in a "
			 "moment, or attach %s once",
			 v->name, owner != NULL ? owner->name : v->origin);
}

uint32_t layers_children(const struct reg *reg, volume_id_t id)
{
	uint32_t count = 0;

	for (const struct reg_layer *l = reg->layers; l != NULL; l = l->hh.next)
		count += l->parent == id;
	return count;
}

void layers_count_children(struct reg *reg)
{
	for (struct reg_layer *l = reg->layers; l != NULL; l = l->hh.next)
		l->children = 0;
	for (const struct reg_layer *l = reg->layers; l != NULL; l = l->hh.next) {
		struct reg_layer *parent = layers_find(reg, l->parent);

		if (parent != NULL)
			parent->children++;
	}
}

/* -- dropping --------------------------------------------------------------------------------- */

static size_t layer_key(volume_id_t id, char *ret, size_t size)
{
	return (size_t)snprintf(ret, size, LAYERS_KEY_PREFIX "%016llx", (unsigned long long)id);
}

void layers_forget(struct reg *reg, struct reg_layer *l)
{
	struct kv_batch *batch = reg_batch(reg);
	char key[40];
	size_t size = layer_key(l->id, key, sizeof key);

	if (batch != NULL)
		kv_batch_delete(reg->kv, batch, PD_KV_META, key, size);
	HASH_DELETE(hh, reg->layers, l);
	free(l);
}

static bool is_a_top(const struct reg *reg, volume_id_t id)
{
	for (const struct reg_volume *v = reg->volumes; v != NULL; v = v->hh.next)
		if (!v->deleted && layers_top(v) == id)
			return true;
	return false;
}

/* A snapshot's own layer is never written, and hides nothing. */
static void want_seal(struct reg *reg, volume_id_t lower)
{
	const struct reg_layer *top = reg->layers;
	struct reg_volume *v = reg->volumes;

	if (lower == 0 || layers_children(reg, lower) != 1 || is_a_top(reg, lower))
		return;
	while (top->parent != lower)
		top = top->hh.next;
	while (v != NULL && (v->deleted || reg_volume_is_snapshot(v) || layers_top(v) != top->id))
		v = v->hh.next;
	if (v == NULL)
		return;
	v->seal_wanted = true;
	v->seal_pays = false;
	v->seal_after_ns = reactor_now_ns(reg->reactor) + LAYERS_SEAL_AFTER_S * NS_PER_S;
	reg_save_volume(reg, v);
}

uint32_t layers_drop(struct reg *reg, volume_id_t top, volume_id_t *ret_ids)
{
	struct reg_layer *l = layers_find(reg, top);
	volume_id_t parent = 0;
	uint32_t count = 0;

	ret_ids[count++] = top;
	while (l != NULL) {
		parent = l->parent;
		layers_forget(reg, l);
		if (parent == 0 || layers_children(reg, parent) > 0 || is_a_top(reg, parent) ||
		    count == LAYERS_MAX)
			break;
		ret_ids[count++] = parent;
		l = layers_find(reg, parent);
	}
	want_seal(reg, parent);
	return count;
}

/* -- kv --------------------------------------------------------------------------------------- */

void layers_save(struct reg *reg, const struct reg_layer *l)
{
	Pave__Reg__Layer m = PAVE__REG__LAYER__INIT;
	char key[40];
	size_t size = layer_key(l->id, key, sizeof key);

	m.format = REG_FORMAT;
	m.id = l->id;
	m.parent = l->parent;
	m.owner = l->owner;
	m.sealed = l->sealed;
	m.merging = l->merging;
	reg_put(reg, PD_KV_META, key, size, &m.base);
}

int layers_load(const void *key, size_t key_size, const void *value, size_t value_size, void *arg)
{
	struct reg *reg = arg;
	Pave__Reg__Layer *m = pave__reg__layer__unpack(NULL, value_size, value);
	struct reg_layer *l = NULL;
	char want[40];
	int rc = -E_CORRUPT;

	if (m == NULL || m->format != REG_FORMAT || m->id == 0 || m->id >= reg->next_volume ||
	    m->parent >= reg->next_volume || m->merging >= reg->next_volume || m->owner == 0 ||
	    m->parent == m->id || layers_find(reg, m->id) != NULL ||
	    layer_key(m->id, want, sizeof want) != key_size || memcmp(want, key, key_size) != 0)
		goto out;
	l = layers_add(reg, m->id, m->parent, m->owner);
	rc = l != NULL ? 0 : -ENOMEM;
	if (l != NULL) {
		l->sealed = m->sealed;
		l->merging = m->merging;
	}
out:
	if (m != NULL)
		pave__reg__layer__free_unpacked(m, NULL);
	return rc;
}
