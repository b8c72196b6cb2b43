/* Assertions that stay on in release builds. PRE: what the caller owes. POST: what this function
 * owes. INVARIANT: what always holds. Never on anything that a peer, a disk or a user sent: that
 * returns an error. */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

_Noreturn void assert_failed(const char *kind, const char *cond, const char *file, int line);

#define ASSERT_(kind, cond)                                                                        \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			assert_failed(kind, #cond, __FILE__, __LINE__);                            \
	} while (0)
#define PRE(cond)	ASSERT_("PRE", cond)
#define POST(cond)	ASSERT_("POST", cond)
#define INVARIANT(cond) ASSERT_("INVARIANT", cond)

#endif
