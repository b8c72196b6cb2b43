/* lookup: see lookup.h. */
#include "engine/store/lookup.h"

#include "engine/base/assert.h"
#include "engine/store/core.h"

int lookup_begin(struct store *store, struct lookup *l)
{
	PRE(l->block_count >= 1 && l->block_count <= IO_BLOCKS_MAX && l->done != NULL);
	l->held = index_find_chunk(&store->index, l->volume, l->chunk);
	if (l->held != NULL)
		l->held->holds++;
	return 0;
}

void lookup_end(struct store *store, struct lookup *l)
{
	(void)store;
	if (l->held == NULL)
		return;
	INVARIANT(l->held->holds > 0);
	l->held->holds--;
	l->held = NULL;
}
