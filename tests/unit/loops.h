/* Loops that break a story at each of its I/Os, commits or allocations in turn. */
#ifndef TEST_LOOPS_H
#define TEST_LOOPS_H

/* The release build breaks it at every one. Under the address sanitizer, with which it takes four
 * times as long, at every third: what that looks for, it sees at any of them. */
#ifdef __SANITIZE_ADDRESS__
#define LOOP_STEP 3u
#else
#define LOOP_STEP 1u
#endif

#endif
