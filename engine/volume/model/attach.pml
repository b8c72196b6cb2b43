/* Attach, reconcile, resync and map change of one block on three nodes, a fourth that takes the place of
 * the first, and two hosts. What stands for what in the code: README.md. Checked by
 * engine/volume/model/check, without the change of the map over all states.
 *
 * One process does everything, one atomic step after the other: all interleavings of what nodes,
 * hosts, the driver and the network do. Frames stay on their way for as long as they like, also
 * after the death of who sent them; one for each host and node.
 *
 * A value is the number of the guest's write that made it, 0: never written. Checked, at each read
 * and acknowledgement: one writer (I4), and one truth (I5): what was acknowledged or seen is never
 * replaced by what is older, and what a newer attachment passed over never comes back.
 *
 * -DMUTANT=1: serves before older permits have run out  2: reconciles without the seal
 *          3: resync leaves phantoms                    4: a map change without joint majorities */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef ATTACHES
#define ATTACHES 3
#endif
#ifndef WRITES
#define WRITES 2
#endif

#ifndef MOVES
#define MOVES 1
#endif

#define NODES 4
#define OLD 7  /* the members: nodes 0, 1, 2 */
#define NEW 14 /* nodes 1, 2, 3 */
#define BIT(n) (1 << (n))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1) + (((m) >> 3) & 1))
#define VERSION(g, s) ((g) * 16 + (s))
#define GENERATION(v) ((v) / 16)

#define DOWN 0    /* no attachment */
#define OPENING 1 /* opens nodes; chunk unopened */
#define COPYING 2 /* reconciles: the winner goes to the members of R' */
#define SEALING 3
#define SERVING 4

/* nodes, durable */
byte fence[NODES], version[NODES], value[NODES], watermark[NODES];
/* the driver, durable */
byte generation, map = OLD;
bool permit[2]; /* may still be in force */
/* hosts; gone with a crash */
byte state[2], mine[2], seq[2], members[2], opened[2], current[2], todo[2], seal[2];
byte out[2], out_value[2], answered[2]; /* the write that is under way; 0: none */
bool out_new[2];			 /* the guest's, not a rewrite */
byte last[2], has[2];			 /* the last decided version; who has answered it */
byte moving[2];				 /* 0: no; 1: node 3 learns; 2: joint; 3: it has the watermark */
/* the network */
byte flight_version[8], flight_value[8]; /* host * NODES + node */
/* what the guests know */
byte next, certain, acked_generation, dead; /* dead: mask of values */

byte h, n, m, s, best;

#define FLIGHT (h * NODES + n)
#define IN(mask) (((mask) & BIT(n)) != 0)
#define ALLOWED (permit[h] && (MUTANT == 1 || !permit[1 - h]))
#define MAY_SERVE (state[h] == SERVING && ALLOWED)
#define ENOUGH(mask) (COUNT((mask) & members[h]) >= 2 && \
		      (MUTANT == 4 || moving[h] < 2 || COUNT((mask) & NEW) >= 2))
#define TARGETS (opened[h] & (members[h] | (moving[h] > 0 -> 8 : 0)))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

inline forget()
{
	seq[h] = 0; members[h] = 0; opened[h] = 0; current[h] = 0; todo[h] = 0; seal[h] = 0;
	out[h] = 0; out_value[h] = 0; answered[h] = 0; out_new[h] = false; last[h] = 0; has[h] = 0;
	moving[h] = 0; mine[h] = 0; state[h] = DOWN
}

inline alive_only(v)
{
	dead = (BIT(next + 1) - 1) & ~BIT(v)
}

/* The best of R: the highest watermark; the winner: newer than that watermark, or its own. */
inline choose_winner()
{
	best = 255; m = 0;
	n = 0;
	do
	:: n < NODES ->
		if
		:: IN(todo[h]) && (best == 255 || watermark[n] > watermark[best]) -> best = n
		:: else
		fi;
		n++
	:: else -> break
	od;
	m = best;
	n = 0;
	do
	:: n < NODES ->
		if
		:: IN(todo[h]) && version[n] > watermark[best] && version[n] > version[m] -> m = n
		:: else
		fi;
		n++
	:: else -> break
	od;
	skip
}

inline is_clean()
{
	s = (todo[h] == members[h]);
	n = 0;
	do
	:: n < NODES ->
		if
		:: IN(todo[h]) && (watermark[n] != watermark[best] || version[n] > watermark[n]) -> s = 0
		:: else
		fi;
		n++
	:: else -> break
	od;
	skip
}

inline serve(who)
{
	current[h] = who; has[h] = who; last[h] = 0; todo[h] = 0; out[h] = 0; out_value[h] = 0;
	answered[h] = 0; state[h] = SERVING
}

inline send_to_targets()
{
	n = 0;
	do
	:: n < NODES ->
		if
		:: IN(TARGETS) && flight_version[FLIGHT] == 0 && fence[n] <= mine[h] ->
			flight_version[FLIGHT] = out[h]; flight_value[FLIGHT] = out_value[h]
		:: else
		fi;
		n++
	:: else -> break
	od;
	skip
}

inline begin_write(v, is_new)
{
	seq[h]++;
	out[h] = VERSION(mine[h], seq[h]); out_value[h] = v; out_new[h] = is_new; answered[h] = 0;
	send_to_targets()
}

inline nothing_on_the_way()
{
	s = 1; n = 0;
	do
	:: n < NODES ->
		if
		:: flight_version[FLIGHT] != 0 && GENERATION(flight_version[FLIGHT]) == mine[h] -> s = 0
		:: else
		fi;
		n++
	:: else -> break
	od;
	skip
}

/* What an older generation has on its way to the node will be refused. */
inline raise_fence()
{
	fence[n] = mine[h];
	s = 0;
	do
	:: s < 2 ->
		if
		:: GENERATION(flight_version[s * NODES + n]) < fence[n] ->
			flight_version[s * NODES + n] = 0; flight_value[s * NODES + n] = 0
		:: else
		fi;
		s++
	:: else -> break
	od;
	skip
}

inline pick_node()
{
	if
	:: n = 0
	:: n = 1
	:: n = 2
	:: n = 3
	fi
}

active proctype everything()
{
	do
	/* which host, and which node: then one of the steps below */
	:: atomic {
		if
		:: h = 0
		:: h = 1
		fi;
		pick_node();
		if
		/* -- driver -- */
		:: state[h] == DOWN && generation < ATTACHES -> d_step {
			generation++; mine[h] = generation; permit[h] = true; members[h] = map; state[h] = OPENING
		   }
		:: permit[h] && mine[h] != generation -> d_step { permit[h] = false }
		/* -- a host crashes; another attachment has fenced it -- */
		:: state[h] != DOWN && mine[h] < ATTACHES -> d_step { forget() }
		:: state[h] != DOWN && IN(opened[h]) && fence[n] > mine[h] -> d_step { forget() }
		/* -- open -- */
		:: (state[h] == OPENING || state[h] == SERVING) && IN(members[h]) && !IN(opened[h]) && fence[n] <= mine[h] ->
		   d_step { raise_fence(); opened[h] = opened[h] | BIT(n) }
		/* -- reconcile -- */
		:: state[h] == OPENING && COUNT(opened[h] & members[h]) >= 2 && n == 0 -> d_step {
			nothing_on_the_way();
			if
			:: s == 1 ->
				todo[h] = opened[h] & members[h];
				choose_winner();
				is_clean();
				if
				:: s == 1 && ALLOWED -> alive_only(value[m]); serve(todo[h])
				:: s == 1 && !ALLOWED -> todo[h] = 0
				:: else ->
					seq[h]++; out[h] = VERSION(mine[h], seq[h]); out_value[h] = value[m]; out_new[h] = false;
					current[h] = todo[h]; answered[h] = 0; moving[h] = 0; state[h] = COPYING
				fi
			:: else
			fi
		   }
		:: state[h] == COPYING && IN(todo[h]) && flight_version[FLIGHT] == 0 && !IN(answered[h]) -> d_step {
			flight_version[FLIGHT] = out[h]; flight_value[FLIGHT] = out_value[h]
		   }
		:: state[h] == COPYING && answered[h] == todo[h] && n == 0 -> d_step {
			seal[h] = out[h]; state[h] = SEALING;
			if
			:: MUTANT == 2 -> todo[h] = 0
			:: else
			fi
		   }
		:: state[h] == SEALING && IN(todo[h]) && fence[n] == mine[h] -> d_step {
			watermark[n] = MAX(watermark[n], seal[h]); todo[h] = todo[h] & ~BIT(n)
		   }
		:: state[h] == SEALING && todo[h] == 0 && n == 0 && ALLOWED -> d_step {
			alive_only(out_value[h]); serve(current[h])
		   }
		/* -- the guest writes; enough copies; too few, and it is given up -- */
		:: MAY_SERVE && out[h] == 0 && next < WRITES && n == 0 -> d_step { next++; begin_write(next, true) }
		:: MAY_SERVE && out[h] != 0 && ENOUGH(answered[h]) && n == 0 -> d_step {
			assert(mine[h] >= acked_generation);
			if
			:: out_new[h] -> acked_generation = mine[h]; certain = out_value[h]; alive_only(out_value[h])
			:: else
			fi;
			last[h] = out[h]; has[h] = answered[h]; out[h] = 0; answered[h] = 0; out_value[h] = 0;
			/* who has not answered is behind, for short */
			current[h] = current[h] & has[h]
		   }
		:: state[h] == SERVING && out[h] != 0 && n == 0 && moving[h] < 3 -> d_step {
			out[h] = 0; out_value[h] = 0; answered[h] = 0; current[h] = 0; has[h] = 0; last[h] = 0; moving[h] = 0; state[h] = OPENING
		   }
		:: state[h] == SERVING && out[h] != 0 && IN(TARGETS) && !IN(answered[h]) && flight_version[FLIGHT] == 0 && fence[n] <= mine[h] -> d_step {
			flight_version[FLIGHT] = out[h]; flight_value[FLIGHT] = out_value[h]
		   }
		/* -- a frame arrives, is lost -- */
		:: flight_version[FLIGHT] != 0 -> d_step {
			if
			:: flight_version[FLIGHT] > version[n] ->
				version[n] = flight_version[FLIGHT]; value[n] = flight_value[FLIGHT]
			:: else
			fi;
			if
			:: out[h] == flight_version[FLIGHT] -> answered[h] = answered[h] | BIT(n)
			:: last[h] == flight_version[FLIGHT] && IN(current[h]) -> has[h] = has[h] | BIT(n)
			:: else
			fi;
			flight_version[FLIGHT] = 0; flight_value[FLIGHT] = 0
		   }
		:: flight_version[FLIGHT] != 0 && state[h] == OPENING && GENERATION(flight_version[FLIGHT]) == mine[h] ->
		   d_step { flight_version[FLIGHT] = 0; flight_value[FLIGHT] = 0 }
		/* -- watermarks -- */
		:: state[h] == SERVING && last[h] > 0 && IN(has[h] & current[h]) && fence[n] == mine[h] && watermark[n] < last[h] ->
		   d_step { watermark[n] = last[h] }
		/* -- resync of n -- */
		:: MAY_SERVE && out[h] == 0 && IN(TARGETS) && !IN(current[h]) && fence[n] == mine[h] && flight_version[FLIGHT] == 0 && (current[h] & has[h]) != 0 -> d_step {
			s = 0;
			do
			:: s < NODES && ((current[h] & has[h]) & BIT(s)) == 0 -> s++
			:: else -> break
			od;
			if
			:: version[n] > version[s] && MUTANT != 3 -> begin_write(value[s], false) /* a phantom */
			:: else ->
				if
				:: version[s] > version[n] -> version[n] = version[s]; value[n] = value[s]
				:: else
				fi;
				current[h] = current[h] | BIT(n); has[h] = has[h] | BIT(n)
			fi
		   }
		/* -- a read -- */
		:: MAY_SERVE && out[h] == 0 && IN(current[h] & has[h] & members[h]) && fence[n] == mine[h] -> d_step {
			assert(value[n] >= certain);
			assert((dead & BIT(value[n])) == 0);
			certain = value[n]
		   }
		/* -- the map changes: node 3 for node 0 -- */
		:: MOVES && MAY_SERVE && moving[h] == 0 && members[h] == OLD && fence[3] <= mine[h] && n == 3 && out[h] == 0 -> d_step {
			raise_fence(); opened[h] = opened[h] | 8; moving[h] = 1
		   }
		:: MAY_SERVE && moving[h] == 1 && out[h] == 0 && IN(current[h] & has[h]) && n == 3 -> d_step { moving[h] = 2 }
		:: MAY_SERVE && moving[h] == 2 && n == 3 && IN(current[h] & has[h]) && fence[3] == mine[h] && out[h] == 0 && COUNT(current[h] & has[h] & NEW) >= 2 -> d_step {
			watermark[3] = MAX(watermark[3], MAX(last[h], seal[h])); moving[h] = 3
		   }
		:: moving[h] == 3 && state[h] == SERVING && mine[h] == generation && n == 3 -> d_step { /* the answer comes */
			map = NEW; members[h] = NEW; current[h] = current[h] & NEW; has[h] = has[h] & NEW;
			opened[h] = opened[h] & NEW; answered[h] = answered[h] & NEW; moving[h] = 0
		   }
		:: moving[h] == 3 && state[h] == SERVING && mine[h] == generation && n == 3 && mine[h] < ATTACHES -> d_step { map = NEW; forget() }
		:: else
		fi;
		d_step { h = 0; n = 0; m = 0; s = 0; best = 0 }
	   }
	od
}
