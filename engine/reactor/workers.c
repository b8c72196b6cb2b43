/* workers: see workers.h. One queue, one lock, one condition: blocking work takes far longer than
 * taking a lock, so nothing finer pays. The queue is intrusive, bounded by what its owners embed.
 */
#include "engine/reactor/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/assert.h"

/* A checkpoint's batch takes milliseconds of CPU time: what the reactors and the kernel's own
 * workers (the ends of durable writes) have to do comes before. Not by much: others wait for the
 * batch in the end. */
#define WORKERS_NICE 5

struct workers {
	void (*finished)(struct reactor_work *work);
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct reactor_work *head;
	struct reactor_work **tail;
	bool stop;
	uint32_t thread_count;
	pthread_t threads[WORKERS_MAX];
};

/* The next work, or NULL when there will be none. */
static struct reactor_work *take(struct workers *ws)
{
	struct reactor_work *work;

	pthread_mutex_lock(&ws->lock);
	while (ws->head == NULL && !ws->stop)
		pthread_cond_wait(&ws->changed, &ws->lock);
	work = ws->head;
	if (work != NULL) {
		ws->head = work->next;
		if (ws->head == NULL)
			ws->tail = &ws->head;
	}
	pthread_mutex_unlock(&ws->lock);
	return work;
}

static void *worker_main(void *arg)
{
	struct workers *ws = arg;
	struct reactor_work *work;

	setpriority(PRIO_PROCESS, (id_t)gettid(), WORKERS_NICE);
	while ((work = take(ws)) != NULL) {
		work->work(work);
		ws->finished(work);
	}
	return NULL;
}

static int start_threads(struct workers *ws, uint32_t count, const char *name)
{
	sigset_t all, before;
	char thread_name[16];
	int rc = 0;

	/* Signals are for the reactors' threads: a worker in the middle of a write to RocksDB must
	 * not be the one that takes them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (ws->thread_count < count && rc == 0) {
		pthread_t *thread = &ws->threads[ws->thread_count];

		rc = -pthread_create(thread, NULL, worker_main, ws);
		if (rc != 0)
			break;
		snprintf(thread_name, sizeof thread_name, "%.12s-w%u", name, ws->thread_count % 10);
		pthread_setname_np(*thread, thread_name);
		ws->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int workers_create(uint32_t count, const char *name, void (*finished)(struct reactor_work *work),
		   struct workers **ret_workers)
{
	struct workers *ws = calloc(1, sizeof *ws);
	int rc;

	PRE(count >= 1 && count <= WORKERS_MAX);
	if (ws == NULL)
		return -ENOMEM;
	ws->finished = finished;
	ws->tail = &ws->head;
	pthread_mutex_init(&ws->lock, NULL);
	pthread_cond_init(&ws->changed, NULL);
	rc = start_threads(ws, count, name);
	if (rc != 0) {
		workers_destroy(ws);
		return rc;
	}
	*ret_workers = ws;
	return 0;
}

void workers_submit(struct workers *ws, struct reactor_work *work)
{
	PRE(work->work != NULL && work->done != NULL);
	work->next = NULL;
	pthread_mutex_lock(&ws->lock);
	PRE(!ws->stop);
	*ws->tail = work;
	ws->tail = &work->next;
	pthread_cond_signal(&ws->changed);
	pthread_mutex_unlock(&ws->lock);
}

void workers_destroy(struct workers *ws)
{
	if (ws == NULL)
		return;
	pthread_mutex_lock(&ws->lock);
	ws->stop = true;
	pthread_cond_broadcast(&ws->changed);
	pthread_mutex_unlock(&ws->lock);
	for (uint32_t i = 0; i < ws->thread_count; i++)
		pthread_join(ws->threads[i], NULL);
	INVARIANT(ws->head == NULL || ws->thread_count == 0);
	pthread_cond_destroy(&ws->changed);
	pthread_mutex_destroy(&ws->lock);
	free(ws);
}
