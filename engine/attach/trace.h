/* The trace socket: `pave trace` on this host asks an attachment where the time of its slowest
 * operations goes.
 *
 * A client connects to the unix socket, sends one line, "trace SECONDS COUNT\n", and gets one JSON
 * object when the time is over; then the connection ends. One client at a time: the next one waits
 * in the socket's backlog, until the first one has its answer, or has gone. A trace is on only
 * meanwhile (engine/volume/trace.h). Only who may write to the socket's folder can connect: its
 * mode is 0600.
 *
 * Thread: the reactor's. */
#ifndef ATTACH_TRACE_H
#define ATTACH_TRACE_H

#include "engine/base/error.h"
#include "engine/volume/volume.h"

#define TRACE_SECONDS_MAX 3600u
#define TRACE_LINE_MS	  5000u /* for the line to come */

struct trace_server;

/* Listens. A socket that nobody answers on is replaced. -EADDRINUSE (somebody does, or it is no
 * socket), -EINVAL (the path is too long) or an errno, with the text. */
int trace_listen(struct reactor *r, const char *path, struct trace_server **ret, struct error *err);

/* The volume is lent until the server has stopped. Once. */
void trace_serve(struct trace_server *s, struct volume *volume);

/* Done once, never inline; then the server is gone. */
void trace_stop(struct trace_server *s, void (*done)(void *arg), void *arg);

#endif
