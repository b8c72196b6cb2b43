/* mutants of layers, on hosts and the driver: see mutants.h. */
#include "engine/placement/family.h"
#include "engine/volume/core.h"
#include "engine/volume/layers.h"
#include "tests/sim/mutants.h"

static bool is(enum mutant m)
{
	return mutant_now() == m;
}

vmask_t __real_vlayers_good(struct vchunk *c);
vmask_t __wrap_vlayers_good(struct vchunk *c);
vmask_t __wrap_vlayers_good(struct vchunk *c)
{
	return is(MUTANT_PART_SERVED) ? c->members : __real_vlayers_good(c);
}

volume_id_t __real_vlayers_settled(const struct volume *v);
volume_id_t __wrap_vlayers_settled(const struct volume *v);
volume_id_t __wrap_vlayers_settled(const struct volume *v)
{
	const struct vset *below = v->sets != NULL ? v->sets->below : NULL;

	if (is(MUTANT_SEALED_EARLY) && below != NULL)
		return below->layer;
	return __real_vlayers_settled(v);
}

bool __real_vlayers_slot_has_all(const struct vchunk *c, uint32_t slot);
bool __wrap_vlayers_slot_has_all(const struct vchunk *c, uint32_t slot);
bool __wrap_vlayers_slot_has_all(const struct vchunk *c, uint32_t slot)
{
	return is(MUTANT_LEARNER_BARE) || __real_vlayers_slot_has_all(c, slot);
}

uint32_t __real_family_erasable(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
				const struct reg_node *n, volume_id_t *ret_ids);
uint32_t __wrap_family_erasable(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
				const struct reg_node *n, volume_id_t *ret_ids);
uint32_t __wrap_family_erasable(struct reg *reg, const struct reg_volume *v, chunk_no_t chunk,
				const struct reg_node *n, volume_id_t *ret_ids)
{
	if (is(MUTANT_SHARED_ERASED))
		return layers_of(reg, v, ret_ids, LAYERS_MAX);
	return __real_family_erasable(reg, v, chunk, n, ret_ids);
}
