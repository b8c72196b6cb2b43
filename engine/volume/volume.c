/* volume: a volume's life: opened, open, closed; and its tick. See volume.h and core.h.
 *
 *   ATTACHING --(prepared; volume_take_over;) permit and map--> OPENING --older permits have run
 * out, a majority of every chunk is there--> OPEN --volume_close--> CLOSING --no operations,
 * watermarks sealed--> STOPPING
 *   --connections gone, permit released--> GONE
 *
 * Failure modes: an opening that fails goes to STOPPING at once, and tells when it is over. An
 * attachment that ends by itself (ended) refuses everything, and waits for volume_close. */
#include "engine/volume/volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/log.h"
#include "engine/volume/core.h"

#define SEAL_MAX_MS 2000u /* on the way out, for watermarks */

static struct vreplica *next_replica(const struct volume *v, uint32_t *node, uint32_t *shard)
{
	while (*node < v->node_count) {
		if (*shard < VREPLICA_SHARDS_MAX && v->nodes[*node].replicas[*shard] != NULL)
			return v->nodes[*node].replicas[(*shard)++];
		(*node)++;
		*shard = 0;
	}
	return NULL;
}

#define FOR_EACH_REPLICA(v, r)                                                                     \
	for (uint32_t n_ = 0, s_ = 0; ((r) = next_replica((v), &n_, &s_)) != NULL;)

/* -- events ------------------------------------------------------------------------------------ */

void volume_event(struct volume *v)
{
	reactor_defer(v->reactor, &v->event_task);
}

void volume_end(struct volume *v, int why, const char *text)
{
	PRE(why < 0);
	if (v->ended != 0 || v->state >= VOLUME_STOPPING)
		return;
	log_warn("volume", "%s: the attachment has ended: %s", v->config.name, text);
	v->ended = why;
	error_set(&v->open_error, why, "%s", text);
	v->attach.gate = (struct gate){.why = why};
	volume_event(v);
}

void volume_detach_asked(struct volume *v)
{
	v->detach_asked = true;
	volume_event(v);
}

void volume_replica_ready(struct volume *v, struct vreplica *r)
{
	for (const struct vset *set = v->sets; set != NULL; set = set->next)
		for (uint32_t i = 0; i < v->chunk_count && !set->retired; i++) {
			const uint32_t slot = vchunk_slot_of(&set->chunks[i], r);

			if (slot != UINT32_MAX)
				vchunk_replica_ready(&set->chunks[i], slot);
		}
	vreconcile_kick(v);
	vresync_kick(v);
	volume_event(v);
}

void volume_replica_away(struct volume *v, struct vreplica *r)
{
	(void)r;
	if (v->chunks != NULL) { /* else it is only being prepared */
		vreconcile_kick(v);
		vresync_kick(v);
	}
	volume_event(v);
}

static void run_kicked(struct reactor_task *task)
{
	struct volume *v = container_of(task, struct volume, kick_task);
	struct vreplica *r;
	struct vchunk *c;

	if (v->ended != 0 || v->state >= VOLUME_STOPPING)
		return;
	FOR_EACH_REPLICA(v, r)
	{
		if (!r->overflow_wanted)
			continue;
		r->overflow_wanted = false;
		vreplica_overflow(r);
	}
	if (v->rewrites_begun) {
		v->rewrites_begun = false;
		vrewrite_tick(v);
	}
	c = v->kicked;
	v->kicked = v->kicked_tail = NULL;
	while (c != NULL) {
		struct vchunk *next = c->kick_next;

		c->kicked = false;
		vchunk_run(c);
		c = next;
	}
}

/* -- opening ----------------------------------------------------------------------------------- */

static bool majority_everywhere(const struct volume *v)
{
	for (uint32_t i = 0; i < v->chunk_count; i++)
		if (vmask_count(vchunk_ready_slots(&v->chunks[i])) < v->majority)
			return false;
	return true;
}

static bool all_tried(const struct volume *v)
{
	const struct vreplica *r;

	FOR_EACH_REPLICA(v, r)
	if (!r->tried && !vreplica_ready(r) && r->address[0] != '\0')
		return false;
	return true;
}

/* Too few of its nodes are eligible, so whoever else is away is not the reason. */
static bool permitted_too_few(const struct volume *v)
{
	for (uint32_t i = 0; i < v->chunk_count; i++)
		if (vmask_count(vchunk_permitted_slots(&v->chunks[i]) & v->chunks[i].members) <
		    v->majority)
			return true;
	return false;
}

static void no_majority(struct volume *v)
{
	char text[600];
	size_t at = 0;
	bool outside = false;

	text[0] = '\0';
	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct vreplica *r = v->nodes[i].replicas[0];

		outside = outside || (!vreplica_ready(r) && !r->permitted);
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s: %s", i > 0 ? "; " : "",
				       v->nodes[i].name,
				       vreplica_ready(r)       ? "ready"
				       : !r->permitted	       ? "not in the permit"
				       : r->address[0] == '\0' ? "its address is not known"
				       : r->why != 0	       ? err_text(r->why)
							       : vreplica_state_name(r));
		at = MIN(at, sizeof(text) - 1);
	}
	error_set(&v->open_error, permitted_too_few(v) ? -E_NOT_IN_PERMIT : -E_UNREACHABLE,
		  "volume %s needs %u of %u replicas of each chunk; %s%s%s%s", v->config.name,
		  v->majority, v->replicas, text, outside ? " (why: pave volume show " : "",
		  outside ? v->config.name : "", outside ? ")" : "");
	v->ended = -E_UNREACHABLE;
}

static void tell_opened(struct volume *v)
{
	struct volume_open_op *op = v->open_op;

	v->open_op = NULL;
	v->state = VOLUME_OPEN;
	log_info("volume", "%s: open", v->config.name);
	op->done(op, 0, v, NULL);
}

/* All that is possible without a permit. */
static bool all_greeted(const struct volume *v)
{
	const struct vreplica *r;

	FOR_EACH_REPLICA(v, r)
	if (!r->tried && !r->greeted && r->address[0] != '\0')
		return false;
	return true;
}

static void check_prepared(struct volume *v)
{
	if (v->prepared_told || v->attach.state != VATTACH_PREPARED || !all_greeted(v))
		return;
	v->prepared_told = true;
	v->config.prepared(v->config.arg);
}

static void check_opening(struct volume *v)
{
	const uint64_t now_ns = volume_now(v);
	const uint64_t serve_ns = v->attach.permit.serve_after_ns;
	const uint64_t since_ns = MAX(v->opening_ns, serve_ns);
	const bool majority = majority_everywhere(v);

	if (majority && v->majority_ns == 0)
		v->majority_ns = now_ns;
	/* The stale reader: an older attachment may be served until then. */
	if (now_ns < serve_ns || !volume_gate_open(v))
		return;
	if (majority && (all_tried(v) || now_ns >= v->majority_ns + VOLUME_GRACE_MS * NS_PER_MS))
		tell_opened(v);
	else if (now_ns >= since_ns + VOLUME_OPEN_MAX_MS * NS_PER_MS)
		no_majority(v);
}

/* -- ends -------------------------------------------------------------------------------------- */

static void stop(struct volume *v)
{
	struct vreplica *r;

	v->state = VOLUME_STOPPING;
	vmove_stop(v);
	vlayers_stop(v);
	vresync_stop(v);
	if (v->rewrites != NULL)
		vrewrite_stop(v);
	vreconcile_stop(v);
	FOR_EACH_REPLICA(v, r)
	vreplica_stop(r);
}

static void check_closing(struct volume *v)
{
	const bool late = volume_now(v) >= v->close_ns + SEAL_MAX_MS * NS_PER_MS;

	if (v->op_count > 0 || v->done_head != NULL || v->extents != NULL) {
		v->close_ns = volume_now(v);
		return;
	}
	if (v->ended == 0 && !late && volume_gate_open(v) &&
	    (vchunk_settle(v, true) > 0 || v->marks_busy > 0))
		return;
	stop(v);
}

static bool tasks_queued(const struct volume *v)
{
	return v->done_task.queued || v->kick_task.queued || v->reconcile.task.queued ||
	       v->resync.task.queued || v->moves.task.queued;
}

static void free_all(struct volume *v)
{
	struct vreplica *r;

	reactor_timer_cancel(v->reactor, &v->tick);
	reactor_timer_cancel(v->reactor, &v->attach.timer);
	vhedge_stop(v);
	vmove_deinit(v);
	vresync_deinit(v);
	vreconcile_deinit(v);
	vrewrite_deinit(v);
	vextents_deinit(v);
	FOR_EACH_REPLICA(v, r)
	{
		vreplica_deinit(r);
		free(r);
	}
	vwrite_pool_deinit(&v->writes);
	vread_pool_deinit(&v->reads);
	if (v->buffers.reactor != NULL)
		vbuffers_deinit(&v->buffers);
	vattach_deinit(&v->attach);
	free(v->spans);
	free(v->marks);
	vlayers_deinit(v);
	free(v->nodes);
	free(v->strings);
	free(v);
}

static void check_stopping(struct volume *v)
{
	struct vreplica *r;

	FOR_EACH_REPLICA(v, r)
	if (r->conn != NULL)
		return;
	if (v->attach.state < VATTACH_DETACHING) {
		/* Only now: whoever attaches next, or has done so already in the place of a
		 * maintenance, may serve at once. */
		if (v->ended == 0 || v->ended == -E_UNREACHABLE ||
		    (v->ended == -E_FENCED && v->config.maintenance))
			vattach_detach(&v->attach);
		else
			vattach_stop(&v->attach);
	}
	if (v->attach.state != VATTACH_OVER || v->attach.conn != NULL)
		return;
	v->state = VOLUME_GONE;
}

static void tell_gone(struct volume *v)
{
	struct volume_open_op *op = v->open_op;
	struct error err = v->open_error;
	void (*done)(void *) = v->close_done;
	void *arg = v->close_arg;

	free_all(v);
	if (op != NULL)
		op->done(op, err.code, NULL, &err);
	if (done != NULL)
		done(arg);
}

static void check_ended(struct volume *v)
{
	const bool told = v->ended_told;
	struct vreplica *r;

	if (v->state < VOLUME_OPEN) {
		stop(v);
		return;
	}
	if (v->state >= VOLUME_STOPPING || told)
		return;
	v->ended_told = true;
	vmove_stop(v);
	vlayers_stop(v);
	vresync_stop(v);
	vrewrite_stop(v);
	vreconcile_stop(v);
	FOR_EACH_REPLICA(v, r)
	vreplica_stop(r);
	volume_ops_end(v, v->ended);
	if (v->state == VOLUME_OPEN && v->config.ended != NULL)
		v->config.ended(v->ended, v->config.arg);
}

static void run_event(struct reactor_task *task)
{
	struct volume *v = container_of(task, struct volume, event_task);

	if (v->state == VOLUME_ATTACHING && v->ended == 0)
		check_prepared(v);
	if (v->state == VOLUME_OPENING && v->ended == 0)
		check_opening(v);
	if (v->ended != 0)
		check_ended(v);
	if (v->state == VOLUME_OPEN && v->detach_asked && v->ended == 0) {
		v->detach_asked = false;
		if (v->config.ended != NULL)
			v->config.ended(0, v->config.arg);
	}
	if (v->state == VOLUME_OPEN && v->ended == 0)
		vlayers_event(v);
	if (v->state == VOLUME_CLOSING)
		check_closing(v);
	if (v->state == VOLUME_STOPPING)
		check_stopping(v);
	if (v->state != VOLUME_GONE)
		return;
	/* The memory goes with the last task that might still run. */
	if (tasks_queued(v))
		volume_event(v);
	else if (!v->event_task.queued)
		tell_gone(v);
}

static void tick_fire(struct reactor_timer *timer)
{
	struct volume *v = container_of(timer, struct volume, tick);
	const uint64_t now_ns = volume_now(v);
	struct vreplica *r;
	struct vchunk *c;

	reactor_timer_arm(v->reactor, &v->tick, now_ns + VOLUME_TICK_MS * NS_PER_MS);
	vattach_tick(&v->attach);
	if (v->chunks != NULL && v->ended == 0 && v->state < VOLUME_STOPPING) {
		FOR_EACH_REPLICA(v, r)
		vreplica_tick(r, now_ns);
		volume_ops_tick(v, now_ns);
		vhedge_tick(v);
		for (c = v->troubled; c != NULL; c = c->troubled_next)
			vchunk_kick(c);
		if (v->state == VOLUME_OPEN)
			vchunk_settle(v, false);
		vrewrite_tick(v);
		vlayers_tick(v);
		vreconcile_kick(v);
		vresync_kick(v);
		vmove_kick(v);
	}
	if (v->extents != NULL)
		vextents_run(v);
	if (v->state != VOLUME_OPEN || v->ended != 0)
		volume_event(v);
}

/* -- calls ------------------------------------------------------------------------------------- */

static const char *copy_string(char **at, const char *s)
{
	const size_t size = strlen(s) + 1;
	char *copy = *at;

	memcpy(copy, s, size);
	*at += size;
	return copy;
}

static int copy_strings(struct volume *v)
{
	struct volume_config *c = &v->config;
	const char **texts[] = {&c->pd_address, &c->name, &c->holder, &c->holder_site,
				&c->endpoint};
	size_t size = 0;
	char *at;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (*texts[i] == NULL)
			*texts[i] = "";
		size += strlen(*texts[i]) + 1;
	}
	v->strings = at = malloc(size);
	if (at == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		*texts[i] = copy_string(&at, *texts[i]);
	return 0;
}

/* Without memory for anything: only the answer is left to give. */
struct no_memory {
	struct volume *none; /* where volume_take_over looks */
	struct reactor_task task;
	struct volume_open_op *op;
};

static void tell_no_memory(struct reactor_task *task)
{
	struct volume_open_op *op = container_of(task, struct no_memory, task)->op;
	struct error err;

	error_set(&err, -ENOMEM, "no memory to attach volume %s", op->config.name);
	op->done(op, -ENOMEM, NULL, &err);
}

void volume_open(struct volume_open_op *op)
{
	struct volume *v = calloc(1, sizeof(*v));

	_Static_assert(sizeof(struct no_memory) <= sizeof(op->impl), "impl is room");
	if (v != NULL) {
		v->config = op->config;
		if (copy_strings(v) != 0) {
			free(v);
			v = NULL;
		}
	}
	if (v == NULL) {
		struct no_memory *n = (struct no_memory *)(void *)op->impl;

		*n = (struct no_memory){.task = {.run = tell_no_memory}, .op = op};
		reactor_defer(op->config.reactor, &n->task);
		return;
	}
	v->reactor = op->config.reactor;
	v->open_op = op;
	op->impl[0] = v;
	v->kick_task.run = run_kicked;
	v->event_task.run = run_event;
	v->tick.fire = tick_fire;
	volume_ops_init(v);
	vhedge_init(v);
	reactor_timer_arm(v->reactor, &v->tick, volume_now(v) + VOLUME_TICK_MS * NS_PER_MS);
	vattach_start(&v->attach, v);
}

void volume_take_over(struct volume_open_op *op)
{
	struct volume *v = op->impl[0];

	if (v != NULL && v->open_op == op && v->state == VOLUME_ATTACHING && v->ended == 0)
		vattach_take_over(&v->attach);
}

void volume_close(struct volume *v, void (*done)(void *arg), void *arg)
{
	PRE(v->state == VOLUME_OPEN);
	v->state = VOLUME_CLOSING;
	v->close_done = done;
	v->close_arg = arg;
	v->close_ns = volume_now(v);
	volume_event(v);
}

void volume_abandon(struct volume *v)
{
	if (v != NULL)
		free_all(v);
}

uint64_t volume_size(const struct volume *v)
{
	return v->size;
}

uint64_t volume_chunk_size(const struct volume *v)
{
	return v->chunk_size;
}

bool volume_read_only(const struct volume *v)
{
	return v->config.read_only;
}

void volume_get_stats(const struct volume *v, struct volume_stats *ret_stats)
{
	*ret_stats = v->stats;
}
