/* A seed that fails, with as few of its faults as still make it fail. */
#ifndef SIM_MINIMISE_H
#define SIM_MINIMISE_H

#include <stdbool.h>
#include <stdint.h>

/* Runs the seed without the faults that left_out names (FAULTS_MAX places), in a process of its
 * own; true: it fails. */
typedef bool minimise_run_fn(const bool *left_out, void *arg);

/* fault_count: of the seed's, up to FAULTS_MAX. Leaves out one part of them after the other, halves
 * first, single ones at last, as long as it fails. At most MINIMISE_RUNS_MAX runs. Returns how many
 * are left; left_out says which are not. */
#define MINIMISE_RUNS_MAX 400u
uint32_t minimise(uint32_t fault_count, minimise_run_fn *run, void *arg, bool *left_out);

#endif
