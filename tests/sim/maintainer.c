/* maintainer: see maintainer.h.
 *
 *   IDLE --the driver asks--> OPENING --open--> ATTACHED --the driver ends it--> CLOSING --> IDLE
 *
 * A node has one at most, as in production. */
#include "tests/sim/maintainer.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"

enum maintainer_phase { MAINTAINER_IDLE, MAINTAINER_OPENING, MAINTAINER_ATTACHED };

struct maintainer {
	struct machine *node;
	struct trust *trust;
	enum maintainer_phase phase;
	bool closing;
	char name[NAME_SIZE_MAX];
	struct volume *volume;
	struct volume_open_op open;
};

struct maintainer *maintainer_create(struct machine *node)
{
	struct maintainer *m = calloc(1, sizeof(*m));
	struct error err = {0};

	INVARIANT(m != NULL);
	m->node = node;
	if (trust_open(NULL, node->cluster->root, strlen(node->cluster->root), &m->trust, &err) !=
	    0)
		cluster_fail(node->cluster, "trust of a maintenance: %s", err.text);
	return m;
}

void maintainer_destroy(struct maintainer *m)
{
	if (m == NULL)
		return;
	trust_close(m->trust);
	free(m);
}

static void closed(void *arg)
{
	struct maintainer *m = arg;

	sim_trace(m->node->cluster->world, m->node->process, "maintenance of %s is over", m->name);
	m->volume = NULL;
	m->closing = false;
	m->phase = MAINTAINER_IDLE;
}

static void ended(int why, void *arg)
{
	struct maintainer *m = arg;

	(void)why;
	if (m->phase != MAINTAINER_ATTACHED || m->closing)
		return;
	m->closing = true;
	volume_close(m->volume, closed, m);
}

static void opened(struct volume_open_op *op, int status, struct volume *v, const struct error *err)
{
	struct maintainer *m = container_of(op, struct maintainer, open);

	if (status != 0) {
		sim_trace(m->node->cluster->world, m->node->process, "no maintenance of %s: %s",
			  m->name, err != NULL ? err->text : err_name(status));
		m->phase = MAINTAINER_IDLE;
		return;
	}
	m->volume = v;
	m->phase = MAINTAINER_ATTACHED;
	m->node->cluster->stats.maintained++;
}

void maintainer_begin(struct maintainer *m, const char *volume)
{
	if (m->phase != MAINTAINER_IDLE)
		return;
	m->phase = MAINTAINER_OPENING;
	snprintf(m->name, sizeof(m->name), "%s", volume);
	memset(&m->open, 0, sizeof(m->open));
	m->open.done = opened;
	m->open.config = (struct volume_config){
	    .reactor = sim_reactor(m->node->process),
	    .transport = m->node->transport,
	    .trust = m->trust,
	    .pd_address = m->node->cluster->pd_addresses,
	    .name = m->name,
	    .holder = m->node->process->name,
	    .holder_site = m->node->site,
	    .endpoint = "maintenance",
	    .maintenance = true,
	    .layers_piece = m->node->cluster->world->seed % 3 == 0,
	    .if_free = true,
	    .ended = ended,
	    .arg = m,
	};
	volume_open(&m->open);
}

void maintainer_crashed(struct maintainer *m)
{
	if (m->volume != NULL)
		volume_abandon(m->volume);
	else if (m->phase == MAINTAINER_OPENING)
		sim_abandon(m->open.impl);
	m->volume = NULL;
	m->closing = false;
	m->phase = MAINTAINER_IDLE;
}

const struct volume *maintainer_volume(const struct maintainer *m)
{
	return m->volume;
}
