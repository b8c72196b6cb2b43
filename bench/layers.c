/* volume-layers: for how long the host stands still when the layers of a volume change.
 *
 *   volume-layers [--limit-ms MS] [CHUNKS ...]
 *
 * A volume of so many chunks, on nodes that are ready and are never asked anything, gets the
 * permits of a life: one that changes nothing, one with a new layer above (a snapshot), the one in
 * which what was below is sealed, one in which that was merged into the layer under it. A timer
 * fires all the time meanwhile; printed is, for each, the longest CPU time of this thread between
 * two of its firings: so long a guest's operation would have waited, were nothing else to run. CPU
 * time and not time, so that other work on the machine does not show.
 *
 * Exit codes: 0 within the limit, 1 not, or failed, 2 usage. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/base/log.h"
#include "engine/volume/core.h"

#define REPLICAS    3u
#define VOLUME	    9u
#define BEAT_NS	    20000u
#define PATIENCE_NS (60 * NS_PER_S)

struct bench {
	struct reactor *reactor;
	struct transport transport;
	struct volume_open_op open;
	struct volume *volume;
	struct reactor_timer beat;
	uint64_t beat_cpu_ns, longest_ns;
	bool wanted; /* what is waited for has come */
	bool (*until)(const struct bench *b);
};

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* -- a world in which nobody answers ----------------------------------------------------------- */

static int refuse(struct transport *t, const char *address, const struct transport_handler *h,
		  void *arg, struct transport_conn **ret_conn)
{
	(void)t;
	(void)address;
	(void)h;
	(void)arg;
	(void)ret_conn;
	return -ECONNREFUSED;
}

static const struct transport_ops nowhere = {.name = "none", .connect = refuse};

static void opened(struct volume_open_op *op, int status, struct volume *v, const struct error *err)
{
	(void)op;
	(void)status;
	(void)v;
	(void)err;
}

static void set_layers(struct volume *v, uint32_t count, const volume_id_t *ids, uint32_t open)
{
	struct permit *p = &v->attach.permit;

	p->layer_count = count;
	for (uint32_t i = 0; i < count; i++) {
		p->layers[i].id = ids[i];
		p->layers[i].open = i < open;
	}
}

static int take_map(struct volume *v, uint32_t chunks, struct error *err)
{
	static char names[REPLICAS][8];
	Pave__V1__AttachReply reply = PAVE__V1__ATTACH_REPLY__INIT;
	Pave__V1__MapNode nodes[REPLICAS], *list[REPLICAS];
	struct permit *p = &v->attach.permit;
	int rc;

	p->volume = VOLUME;
	p->generation = 1;
	p->deadline_ns = UINT64_MAX;
	p->node_count = REPLICAS;
	p->nodes = calloc(REPLICAS, sizeof *p->nodes);
	reply.map.data = malloc((size_t)chunks * REPLICAS);
	if (p->nodes == NULL || reply.map.data == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < REPLICAS; i++) {
		snprintf(names[i], sizeof names[i], "n%u", i);
		snprintf(p->nodes[i].node, sizeof p->nodes[i].node, "%s", names[i]);
		pave__v1__map_node__init(&nodes[i]);
		nodes[i].node = names[i];
		list[i] = &nodes[i];
	}
	for (size_t i = 0; i < (size_t)chunks * REPLICAS; i++)
		reply.map.data[i] = (uint8_t)(i % REPLICAS);
	reply.volume = VOLUME;
	reply.chunk_size = CHUNK_SIZE_DEFAULT;
	reply.size = chunks * CHUNK_SIZE_DEFAULT;
	reply.replicas = REPLICAS;
	reply.map.len = (size_t)chunks * REPLICAS;
	reply.n_nodes = REPLICAS;
	reply.nodes = list;
	set_layers(v, 1, &(volume_id_t){VOLUME}, 1);
	rc = volume_take_map(v, &reply, err);
	free(reply.map.data);
	return rc;
}

/* Every chunk serves, on nodes that are there. */
static void serve(struct volume *v)
{
	for (uint32_t i = 0; i < REPLICAS; i++) {
		v->nodes[i].shard_count = 1;
		v->nodes[i].permitted = true;
		v->nodes[i].replicas[0]->permitted = true;
		v->nodes[i].replicas[0]->state = VREPLICA_READY;
		v->nodes[i].replicas[0]->tried = true;
	}
	for (uint32_t i = 0; i < v->chunk_count; i++) {
		v->chunks[i].state = VCHUNK_SERVING;
		for (uint32_t k = 0; k < REPLICAS; k++)
			v->chunks[i].slots[k].current = v->chunks[i].slots[k].fresh = true;
	}
	v->attach.state = VATTACH_ATTACHED;
	v->attach.gate.deadline_ns = UINT64_MAX;
	v->state = VOLUME_OPEN;
	v->open_op = NULL;
}

/* -- measuring --------------------------------------------------------------------------------- */

static void beat(struct reactor_timer *timer)
{
	struct bench *b = container_of(timer, struct bench, beat);
	const uint64_t now_ns = cpu_ns();

	b->longest_ns = MAX(b->longest_ns, now_ns - b->beat_cpu_ns);
	b->wanted = b->until(b);
	b->beat_cpu_ns = cpu_ns();
	reactor_timer_arm(b->reactor, timer, reactor_now_ns(b->reactor) + BEAT_NS);
}

/* Gives the volume the permit that was set, and waits. The longest stop, or 0: it never came. */
static uint64_t run(struct bench *b, bool (*until)(const struct bench *b))
{
	int rc;

	b->wanted = false;
	b->until = until;
	b->longest_ns = 0;
	b->beat_cpu_ns = cpu_ns();
	volume_permit_changed(b->volume);
	beat(&b->beat);
	b->wanted = false; /* what this turn has put off counts, too */
	rc = reactor_run_until(b->reactor, &b->wanted, reactor_now_ns(b->reactor) + PATIENCE_NS);
	reactor_timer_cancel(b->reactor, &b->beat);
	return rc == 0 ? MAX(b->longest_ns, 1u) : 0;
}

static bool at_once(const struct bench *b)
{
	(void)b;
	return true;
}

static bool is_settled(const struct bench *b)
{
	return b->volume->layers.settled != 0;
}

static bool is_tidied(const struct bench *b)
{
	return b->volume->sets->next == NULL && !b->volume->layers.restore_wanted;
}

static int measure(struct bench *b, uint32_t chunks, uint64_t limit_ns)
{
	static const char *const names[] = {"nothing new",    "a layer begins", "it is sealed",
					    "another begins", "it is sealed",	"merged"};
	static const volume_id_t layers[][3] = {{VOLUME},	  {10, VOLUME},	    {10, VOLUME},
						{11, 10, VOLUME}, {11, 10, VOLUME}, {11, VOLUME}};
	static const uint32_t counts[] = {1, 2, 2, 3, 3, 2}, opens[] = {1, 2, 1, 2, 1, 1};
	bool (*const untils[])(const struct bench *) = {at_once,    is_settled, is_tidied,
							is_settled, is_tidied,	is_tidied};
	struct error err = {0};
	int rc = 0;

	b->open = (struct volume_open_op){
	    .done = opened,
	    .config = {.reactor = b->reactor,
		       .transport = &b->transport,
		       .pd_address = "nobody:1",
		       .name = "v",
		       .holder = "bench"},
	};
	volume_open(&b->open);
	b->volume = b->open.impl[0];
	rc = take_map(b->volume, chunks, &err);
	if (rc < 0) {
		fprintf(stderr, "volume-layers: %u chunks: %s\n", chunks, err_text(rc));
		return 1;
	}
	serve(b->volume);
	printf("%7u chunks:", chunks);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		uint64_t longest_ns;

		set_layers(b->volume, counts[i], layers[i], opens[i]);
		longest_ns = run(b, untils[i]);
		printf("%s %s %.2f ms", i > 0 ? "," : "", names[i], (double)longest_ns / 1e6);
		rc |= longest_ns == 0 || longest_ns > limit_ns;
	}
	printf("\n");
	fflush(stdout);
	volume_abandon(b->volume);
	return rc;
}

static bool parse(const char *text, uint64_t max, uint64_t *ret_number)
{
	char *end;

	*ret_number = strtoull(text, &end, 10);
	return *text != '\0' && *end == '\0' && *ret_number > 0 && *ret_number <= max;
}

static int usage(void)
{
	fprintf(stderr, "usage: volume-layers [--limit-ms MS] [CHUNKS ...], of 1 to %u chunks\n",
		VOLUME_CHUNKS_MAX);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"limit-ms", required_argument, NULL, 'l'}, {0}};
	static const char *const usual[] = {"64", "4096", "65536", "262144"};
	struct reactor_config config = {.name = "bench"};
	struct bench b = {.beat = {.fire = beat}, .transport = {.ops = &nowhere}};
	uint64_t limit_ms = 10, chunks;
	int c, rc = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (c == '?' || !parse(optarg, UINT32_MAX, &limit_ms))
			return usage();
	if (reactor_create(&config, &b.reactor) < 0)
		return fprintf(stderr, "volume-layers: there is no io_uring\n"), 1;
	b.transport.reactor = b.reactor;
	log_set_level(LOG_ERROR);
	for (int i = 0; i < (optind < argc ? argc - optind : (int)ARRAY_SIZE(usual)); i++) {
		const char *text = optind < argc ? argv[optind + i] : usual[i];

		if (!parse(text, VOLUME_CHUNKS_MAX, &chunks))
			return usage();
		rc |= measure(&b, (uint32_t)chunks, limit_ms * NS_PER_MS);
	}
	reactor_destroy(b.reactor);
	return rc;
}
