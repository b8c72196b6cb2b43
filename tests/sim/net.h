/* The simulated network: net/transport.h between processes of one world, by address.
 *
 * Connections are ordered and reliable while the link between the two machines works. Frames are
 * encoded and decoded by net/frame. The bytes of a frame are taken when it leaves, some time after
 * transport_send and before its done, so memory that its owner reuses too early shows as a CRC
 * that doesn't match. Payloads without rx_buffer lie at odd addresses.
 *
 * Faults. A cut link (one direction) holds frames back until it is healed; when a connection has
 * been held back for longer than its patience it ends on both sides. A killed process's peers
 * learn of it after a delay; those of a machine without power by
 * their patience, or when it is up again. */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "net/transport.h"
#include "tests/sim/process.h"

/* For p's present incarnation; a crash destroys it, and its connections with it. Address: any text,
 * unique in the world; "" as listening address stands for the process's name. */
struct transport *sim_transport_create(struct sim_process *p);

/* One direction; false heals, and what was held back goes on. */
void sim_net_cut(struct sim_process *from, struct sim_process *to, bool cut);

/* Both directions between p and everybody else. */
void sim_net_isolate(struct sim_process *p, bool cut);
void sim_net_heal_all(struct sim_world *w);

/* All connections between the two end with -E_DISCONNECTED, on each side after a delay of its own.
 */
void sim_net_disconnect(struct sim_process *a, struct sim_process *b);

/* Delay of one direction, from now on: each frame takes min_ns to max_ns. */
void sim_net_set_delay(struct sim_process *from, struct sim_process *to, uint64_t min_ns,
		       uint64_t max_ns);

/* Sees every frame at transport_send, with its iovecs still to be read: for checkers. NULL: nobody.
 * It must not change anything. */
void sim_net_observe(struct sim_world *w,
		     void (*observe)(const struct sim_process *from, const struct sim_process *to,
				     const struct transport_send *send, void *arg),
		     void *arg);

struct sim_net_stats {
	uint64_t connects, frames, bytes, broken;
};
struct sim_net_stats sim_net_stats(const struct sim_world *w);

/* -- for the other parts of the simulator ---------------------------------------------------- */

void sim_net_crash(struct sim_process *p, enum sim_crash how);
/* A machine that is up again resets connections that it doesn't know. */
void sim_net_started(struct sim_process *p);
void sim_net_destroy(struct sim_world *w);

#endif
