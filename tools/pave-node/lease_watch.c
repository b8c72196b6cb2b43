/* lease watch: see lease_watch.h. */
#include "tools/pave-node/lease_watch.h"

enum lease_word lease_watch_step(struct lease_watch *w, uint64_t now_ns, bool held,
				 uint64_t answers, uint64_t *ret_ns)
{
	const bool heard = held || answers != w->answers;
	const bool was_told = w->told;

	if (w->heard_ns == 0)
		w->heard_ns = now_ns;
	*ret_ns = now_ns - w->heard_ns;
	w->answers = answers;
	if (heard) {
		w->heard_ns = now_ns;
		w->told = false;
		return was_told ? LEASE_WORD_OVER : LEASE_WORD_NONE;
	}
	if (was_told || *ret_ns < LEASE_WATCH_AFTER_NS)
		return LEASE_WORD_NONE;
	w->told = true;
	return LEASE_WORD_SILENT;
}
