/* Countries, jurisdictions and territories: ISO 3166-1 alpha-2 codes, ISO 3166-2 subdivision codes,
 * and the sets that policies speak of. Jurisdictions are sets of countries, so that every rule
 * about them is one of two questions: does this lie wholly within that, and do the two meet. Pure;
 * no memory is taken.
 *
 * Sets of countries: EU (the member states with the outermost regions that have codes of their own
 * and Aland, without the overseas countries and territories), EEA (EU, IS, LI, NO), any. Sets of
 * territories: FR-metropolitan, FR, EU, EEA, any. */
#ifndef EVIDENCE_PLACES_H
#define EVIDENCE_PLACES_H

#include "engine/base/types.h"

#define COUNTRY_WORDS 11u /* one bit for each of 26 * 26 pairs of letters */

struct jurisdiction {
	const char *text; /* borrowed from what was parsed; NULL: missing */
	uint64_t countries[COUNTRY_WORDS];
};

/* text is lent for as long as *ret_jurisdiction lives. In a rule (of a policy) "any" and a leading
 * "!" are allowed too. -EINVAL: no such code or set. */
int jurisdiction_parse(const char *text, bool in_rule, struct jurisdiction *ret_jurisdiction);

/* Every country of inner is in outer. */
bool jurisdiction_within(const struct jurisdiction *inner, const struct jurisdiction *outer);

/* Some country is in both. */
bool jurisdiction_meets(const struct jurisdiction *a, const struct jurisdiction *b);

/* An ISO 3166-1 alpha-2 code that is assigned. */
bool country_is_known(const char *text);

/* A code of the shape of ISO 3166-2 whose country is known; where the country is France it must be
 * one of its codes, since the sets about France depend on it. */
bool subdivision_is_known(const char *text);

/* What the territory rule of a policy may name. */
bool territory_is_known(const char *text);

/* Whether a site's country (of the place itself: GP) and its territory (FR-971, or the country's
 * code again) speak of the same place. Both must be known codes. */
bool place_agrees(const char *country, const char *territory);

/* Whether the place lies in what a territory rule names. The place must agree with itself. */
bool place_within(const char *country, const char *territory, const char *wanted);

/* Whether every place of one code or set that a territory rule may name lies in another. */
bool territory_within(const char *inner, const char *outer);

#endif
