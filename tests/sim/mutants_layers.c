/* mutants of layers, on hosts: see mutants.h. */
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
	const struct vset *below = v->sets != NULL ? v->sets->next : NULL;

	if (is(MUTANT_SEALED_EARLY) && below != NULL && !below->chunks[0].retired)
		return below->layer;
	return __real_vlayers_settled(v);
}
