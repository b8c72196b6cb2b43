/* Static tracepoints: a nop each, until perf, bpftrace or SystemTap puts a breakpoint there.
 *
 *   perf buildid-cache --add pave-node; perf probe sdt_pave:*; perf record -e sdt_pave:* ...
 *
 * What is passed is already at hand where the tracepoint stands: it costs no load. The road of a
 * write, in order, with the arguments:
 *
 *   host   op_submit (offset, size, kind) -> frame_send (request_id, op, block)
 *   node   node_receive (request_id, op, block) -> log_write (seq, entries, blocks)
 *          -> log_durable (seq, entries, status) -> node_answer (request_id, op, status)
 *   host   host_answer (request_id, op, status) -> op_done (offset, size, status) */
#ifndef BASE_PROBE_H
#define BASE_PROBE_H

#ifdef PAVE_HAVE_SDT
#include <sys/sdt.h>
#define PROBE(name, a, b, c) DTRACE_PROBE3(pave, name, a, b, c)
#else
#define PROBE(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#endif

#endif
