/* Attach, reconcile, resync and map change of one block on three nodes, a fourth that takes the place of
 * the first, and two hosts. What stands for what in the code, and which states count as one: README.md.
 * Checked over all states by engine/volume/model/check.
 *
 * One process does everything, one atomic step after the other: all interleavings of what nodes,
 * hosts, the driver and the network do. Frames stay on their way for as long as they like, also
 * after the death of who sent them; one for each attachment and node.
 *
 * An attachment is a host: the first, then the second. A host that attaches again after a crash
 * is like another one: nothing is left of what it knew, and what it had sent is still on its way.
 *
 * A value is the number of the guest's write that made it, 0: never written. Checked, at each read
 * and acknowledgement: one writer (I4), and one truth (I5): what was acknowledged or seen is never
 * replaced by what is older, and what a newer attachment passed over never comes back.
 *
 * -DMUTANT=1: serves before older permits have run out  2: reconciles without the seal
 *          3: resync leaves phantoms                    4: a map change without joint majorities
 *          5: the map changes with a learner that lacks a write */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef ATTACHES
#define ATTACHES 2
#endif
#ifndef WRITES
#define WRITES 1
#endif

#ifndef MOVES
#define MOVES 1
#endif

#define NODES 4
#define OLD 7  /* the members: nodes 0, 1, 2 */
#define NEW 14 /* nodes 1, 2, 3 */
#define BIT(n) (1 << (n))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1) + (((m) >> 3) & 1))
#define SEQS 32
#define VERSION(g, s) ((g) * SEQS + (s))
#define GENERATION(v) ((v) / SEQS)

#define DOWN 0    /* no attachment */
#define OPENING 1 /* opens nodes; chunk unopened */
#define COPYING 2 /* reconciles: the winner goes to the members of R' */
#define SEALING 3
#define SERVING 4

/* nodes, durable */
byte fence[NODES], version[NODES], value[NODES], watermark[NODES];
/* the driver, durable */
byte generation, map = OLD;
bool permit[ATTACHES]; /* may still be in force */
/* hosts; gone with a crash */
byte state[ATTACHES], mine[ATTACHES], seq[ATTACHES], members[ATTACHES], opened[ATTACHES];
byte current[ATTACHES], todo[ATTACHES], seal[ATTACHES];
byte out[ATTACHES], out_value[ATTACHES], answered[ATTACHES]; /* the write that is under way; 0: none */
bool out_new[ATTACHES];			 /* the guest's, not a rewrite */
byte last[ATTACHES]; /* the last decided version: who is current has answered it */
byte moving[ATTACHES];				 /* 0: no; 1: node 3 learns; 2: joint; 3: it has the watermark */
/* the network */
byte flight_version[ATTACHES * NODES], flight_value[ATTACHES * NODES]; /* host * NODES + node */
/* what the guests know */
byte next, certain, acked_generation, dead; /* dead: mask of values */

byte h, n, m, s, best;

/* Which states are one, and why nothing is lost by that: README.md. */
c_code {
#define NUMBERS (2 * NODES + ATTACHES * NODES + 3 * ATTACHES)
#define MASKS (5 * ATTACHES)

	static void versions(uchar *ret[NUMBERS])
	{
		int i, c = 0;

		for (i = 0; i < NODES; i++) {
			ret[c++] = &now.version[i];
			ret[c++] = &now.watermark[i];
		}
		for (i = 0; i < ATTACHES * NODES; i++)
			ret[c++] = &now.flight_version[i];
		for (i = 0; i < ATTACHES; i++) {
			ret[c++] = &now.out[i];
			ret[c++] = &now.last[i];
			ret[c++] = &now.seal[i];
		}
	}

	/* The versions of each generation that anybody still knows become 1, 2, 3 in their order. */
	static void number_versions(void)
	{
		uchar *at[NUMBERS], number[VERSION(ATTACHES + 1, 0)] = {0};
		int i, g, top[ATTACHES + 1];

		versions(at);
		for (i = 0; i < NUMBERS; i++)
			number[*at[i]] = 1;
		number[0] = 0;
		for (g = 1; g <= ATTACHES; g++) {
			top[g] = 0;
			for (i = VERSION(g, 0); i < VERSION(g + 1, 0); i++)
				if (number[i])
					number[i] = VERSION(g, ++top[g]);
		}
		for (i = 0; i < NUMBERS; i++)
			*at[i] = number[*at[i]];
		for (i = 0; i < ATTACHES; i++)
			now.seq[i] = now.mine[i] != 0 ? top[now.mine[i]] : 0;
	}

	static void masks(uchar *ret[MASKS])
	{
		int i, c = 0;

		for (i = 0; i < ATTACHES; i++) {
			ret[c++] = &now.opened[i];
			ret[c++] = &now.current[i];
			ret[c++] = &now.todo[i];
			ret[c++] = &now.answered[i];
			ret[c++] = &now.members[i]; /* has both or none */
		}
	}

	static void exchange(uchar *a, uchar *b)
	{
		uchar was = *a;

		*a = *b;
		*b = was;
	}

	/* Nodes 1 and 2 are alike: they stand in the order of what is known of them. */
	static void order_nodes(void)
	{
		uchar *mask[MASKS];
		int i, by = 0;

		masks(mask);
#define COMPARE(a, b) by = by != 0 ? by : (int)(a) - (int)(b)
		COMPARE(now.version[1], now.version[2]);
		COMPARE(now.watermark[1], now.watermark[2]);
		COMPARE(now.fence[1], now.fence[2]);
		for (i = 0; i < ATTACHES; i++)
			COMPARE(now.flight_version[i * NODES + 1], now.flight_version[i * NODES + 2]);
		for (i = 0; i < MASKS; i++)
			COMPARE(*mask[i] & 2, *mask[i] >> 1 & 2);
		if (by <= 0)
			return;
		exchange(&now.version[1], &now.version[2]);
		exchange(&now.value[1], &now.value[2]);
		exchange(&now.watermark[1], &now.watermark[2]);
		exchange(&now.fence[1], &now.fence[2]);
		for (i = 0; i < ATTACHES; i++) {
			exchange(&now.flight_version[i * NODES + 1], &now.flight_version[i * NODES + 2]);
			exchange(&now.flight_value[i * NODES + 1], &now.flight_value[i * NODES + 2]);
		}
		for (i = 0; i < MASKS; i++)
			*mask[i] = (*mask[i] & ~6) | (*mask[i] & 2) << 1 | (*mask[i] & 4) >> 1;
	}

	/* A frame that changes nothing where it arrives, and that nobody waits for. */
	static void drop_idle_frames(void)
	{
		int i;

		for (i = 0; i < ATTACHES * NODES; i++) {
			if (now.flight_version[i] > now.version[i % NODES] ||
			    (now.flight_version[i] == now.out[i / NODES]))
				continue;
			now.flight_version[i] = 0;
			now.flight_value[i] = 0;
		}
	}

	/* A fence that only keeps out those that are gone. */
	static void drop_idle_fences(void)
	{
		int g = 0, n;

		while (g < now.generation && now.mine[g] == 0)
			g++;
		for (n = 0; n < NODES; n++)
			if (now.fence[n] <= g)
				now.fence[n] = 0;
	}

	/* Node 0 is of no map that anybody knows. */
	static void drop_idle_node(void)
	{
		int i;

		for (i = 0; i < ATTACHES; i++)
			if (now.mine[i] != 0 && (now.members[i] & 1) != 0)
				return;
		if (now.map != NEW)
			return;
		now.version[0] = now.value[0] = now.watermark[0] = now.fence[0] = 0;
		for (i = 0; i < ATTACHES; i++)
			now.flight_version[i * NODES] = now.flight_value[i * NODES] = 0;
	}

	static void as_one(void)
	{
		drop_idle_node();
		drop_idle_frames();
		drop_idle_fences();
		number_versions();
		order_nodes();
	}
};

#define FLIGHT (h * NODES + n)
#define IN(mask) (((mask) & BIT(n)) != 0)
#if ATTACHES == 2
#define OLDER_PERMIT (h == 1 && permit[0])
#else
#define OLDER_PERMIT ((h >= 1 && permit[0]) || (h == 2 && permit[1]))
#endif
#define ALLOWED (permit[h] && (MUTANT == 1 || !OLDER_PERMIT))
#define MAY_SERVE (state[h] == SERVING && ALLOWED)
#define ENOUGH(mask) (COUNT((mask) & members[h]) >= 2 && \
		      (MUTANT == 4 || moving[h] < 2 || COUNT((mask) & NEW) >= 2))
#define TARGETS (opened[h] & (members[h] | (moving[h] > 0 -> 8 : 0)))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

inline forget()
{
	seq[h] = 0; members[h] = 0; opened[h] = 0; current[h] = 0; todo[h] = 0; seal[h] = 0;
	out[h] = 0; out_value[h] = 0; answered[h] = 0; out_new[h] = false; last[h] = 0;
	moving[h] = 0; mine[h] = 0; permit[h] = false; state[h] = DOWN
}

inline alive_only(v)
{
	assert((dead & BIT(v)) == 0);
	dead = (BIT(next + 1) - 1) & ~BIT(v)
}

/* The best of R: the highest watermark; the winner: newer than that watermark, or its own. Of nodes
 * that are as good the one with the older version, whatever its number: nodes 1 and 2 are alike. */
inline choose_winner()
{
	best = 255;
	n = 0;
	do
	:: n < NODES ->
		if
		:: IN(todo[h]) && (best == 255 || watermark[n] > watermark[best] ||
				   (watermark[n] == watermark[best] && version[n] < version[best])) -> best = n
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

/* What every replica of R has in the winner's version is left alone. */
inline all_have_it()
{
	s = 1; n = 0;
	do
	:: n < NODES ->
		if
		:: IN(todo[h]) && version[n] != version[m] -> s = 0
		:: else
		fi;
		n++
	:: else -> break
	od;
	skip
}

inline begin_seal()
{
	seal[h] = out[h]; state[h] = SEALING;
	if
	:: MUTANT == 2 -> todo[h] = 0
	:: else
	fi
}

inline serve(who)
{
	current[h] = who; last[h] = 0; todo[h] = 0; out[h] = 0; out_value[h] = 0;
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
	assert(seq[h] < SEQS);
	out[h] = VERSION(mine[h], seq[h]); out_value[h] = v; out_new[h] = is_new; answered[h] = 0;
	send_to_targets()
}

/* R: those that still know this attachment. s: whether they are enough, and nothing of it is on its
 * way any more. */
inline ask_opened()
{
	s = 1; n = 0;
	do
	:: n < NODES ->
		if
		:: flight_version[FLIGHT] != 0 -> s = 0
		:: else
		fi;
		if
		:: IN(opened[h] & members[h]) && fence[n] == mine[h] -> todo[h] = todo[h] | BIT(n)
		:: else
		fi;
		n++
	:: else -> break
	od;
	if
	:: s == 0 || COUNT(todo[h]) < 2 -> s = 0; todo[h] = 0
	:: else
	fi
}

/* From whom n resyncs: of those that may be asked the one with the oldest version. */
inline choose_source()
{
	s = NODES; m = 0;
	do
	:: m < NODES ->
		if
		:: (current[h] & BIT(m)) != 0 && (s == NODES || version[m] < version[s]) -> s = m
		:: else
		fi;
		m++
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
	:: s < ATTACHES ->
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

/* And the old copy is erased; the fence is the volume's, and stays. */
inline change_map()
{
	map = NEW; version[0] = 0; value[0] = 0; watermark[0] = 0
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

inline pick_host()
{
	if
	:: h = 0
	:: h = 1
#if ATTACHES > 2
	:: h = 2
#endif
	fi
}

active proctype everything()
{
	do
	/* which host, and which node: then one of the steps below */
	:: atomic {
		pick_host();
		pick_node();
		if
		/* -- driver -- */
		:: state[h] == DOWN && generation == h && n == 0 -> d_step {
			generation++; mine[h] = generation; permit[h] = true; members[h] = map; state[h] = OPENING
		   }
		:: permit[h] && mine[h] != generation && n == 0 -> d_step { permit[h] = false }
		/* -- a host crashes; another attachment has fenced it -- */
		:: state[h] != DOWN && mine[h] < ATTACHES && n == 0 -> d_step { forget() }
		:: state[h] != DOWN && IN(opened[h]) && fence[n] > mine[h] -> d_step { forget() }
		/* -- open -- */
		:: (state[h] == OPENING || state[h] == SERVING) && IN(members[h]) && !IN(opened[h]) && fence[n] <= mine[h] ->
		   d_step { raise_fence(); opened[h] = opened[h] | BIT(n) }
		/* -- reconcile -- */
		:: state[h] == OPENING && COUNT(opened[h] & members[h]) >= 2 && n == 0 -> d_step {
			ask_opened();
			if
			:: s == 1 ->
				choose_winner();
				is_clean();
				if
				:: s == 1 && ALLOWED -> alive_only(value[m]); serve(todo[h])
				:: s == 1 && !ALLOWED -> todo[h] = 0
				:: else ->
					seq[h]++; out[h] = VERSION(mine[h], seq[h]); out_value[h] = value[m]; out_new[h] = false;
					current[h] = todo[h]; answered[h] = 0; moving[h] = 0; state[h] = COPYING;
					all_have_it();
					if
					:: s == 1 -> begin_seal()
					:: else
					fi
				fi
			:: else
			fi
		   }
		:: state[h] == COPYING && IN(todo[h]) && flight_version[FLIGHT] == 0 && !IN(answered[h]) && fence[n] == mine[h] -> d_step {
			flight_version[FLIGHT] = out[h]; flight_value[FLIGHT] = out_value[h]
		   }
		:: state[h] == COPYING && answered[h] == todo[h] && n == 0 -> d_step {
			begin_seal()
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
			last[h] = out[h]; seal[h] = 0;
			current[h] = current[h] & answered[h]; /* who has not answered is behind, for short */
			out[h] = 0; answered[h] = 0; out_value[h] = 0; out_new[h] = false
		   }
		:: state[h] == SERVING && out[h] != 0 && n == 0 && moving[h] < 3 -> d_step {
			out[h] = 0; out_value[h] = 0; answered[h] = 0; out_new[h] = false; current[h] = 0; last[h] = 0; seal[h] = 0;
			moving[h] = 0; state[h] = OPENING
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
			:: else
			fi;
			flight_version[FLIGHT] = 0; flight_value[FLIGHT] = 0
		   }
		:: flight_version[FLIGHT] != 0 && state[h] == OPENING && GENERATION(flight_version[FLIGHT]) == mine[h] ->
		   d_step { flight_version[FLIGHT] = 0; flight_value[FLIGHT] = 0 }
		/* -- watermarks -- */
		:: state[h] == SERVING && last[h] > 0 && IN(current[h]) && fence[n] == mine[h] && watermark[n] < last[h] ->
		   d_step { watermark[n] = last[h] }
		/* -- resync of n -- */
		:: MAY_SERVE && out[h] == 0 && IN(TARGETS) && !IN(current[h]) && fence[n] == mine[h] && flight_version[FLIGHT] == 0 && current[h] != 0 -> d_step {
			choose_source();
			if
			:: version[n] > version[s] && MUTANT != 3 -> begin_write(value[s], false) /* a phantom */
			:: else ->
				if
				:: version[s] > version[n] -> version[n] = version[s]; value[n] = value[s]
				:: else
				fi;
				current[h] = current[h] | BIT(n)
			fi
		   }
		/* -- a read -- */
		:: MAY_SERVE && out[h] == 0 && IN(current[h] & members[h]) && fence[n] == mine[h] -> d_step {
			assert(value[n] >= certain);
			assert((dead & BIT(value[n])) == 0);
			certain = value[n]
		   }
		/* -- the map changes: node 3 for node 0 -- */
		:: MOVES && MAY_SERVE && moving[h] == 0 && members[h] == OLD && fence[3] <= mine[h] && n == 3 && out[h] == 0 -> d_step {
			raise_fence(); opened[h] = opened[h] | 8; moving[h] = 1
		   }
		:: MAY_SERVE && moving[h] == 1 && out[h] == 0 && (MUTANT == 5 || IN(current[h])) && n == 3 -> d_step { moving[h] = 2 }
		:: MAY_SERVE && moving[h] == 2 && n == 3 && fence[3] == mine[h] && out[h] == 0 &&
		   (MUTANT == 5 || (IN(current[h]) && COUNT(current[h] & NEW) >= 2)) -> d_step {
			watermark[3] = MAX(watermark[3], MAX(last[h], seal[h])); moving[h] = 3
		   }
		/* -- it is given up, before the driver is asked -- */
		:: state[h] == SERVING && (moving[h] == 1 || moving[h] == 2) && out[h] == 0 && n == 3 -> d_step {
			opened[h] = opened[h] & OLD; current[h] = current[h] & OLD; moving[h] = 0
		   }
		/* -- the driver has changed the map; the host hears of it, or dies before -- */
		:: moving[h] == 3 && state[h] == SERVING && mine[h] == generation && n == 3 -> d_step {
			change_map(); members[h] = NEW; current[h] = current[h] & NEW;
			opened[h] = opened[h] & NEW; answered[h] = answered[h] & NEW; moving[h] = 0
		   }
		:: moving[h] == 3 && state[h] == SERVING && mine[h] == generation && n == 3 && mine[h] < ATTACHES -> d_step { change_map(); forget() }
		:: else
		fi;
		d_step { h = 0; n = 0; m = 0; s = 0; best = 0; c_code { as_one(); } }
	   }
	od
}
