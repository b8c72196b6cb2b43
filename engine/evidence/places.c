/* places: see places.h. The tables are facts of ISO 3166 (2024) and of the EU treaties (articles
 * 349 and 355 TFEU, annex II); they change about once in ten years.
 *
 * Happy path: a document's codes are checked against the tables when it is parsed, and a rule is
 * then set algebra on bits. Failure mode: a code that the tables do not hold is refused, so that
 * "UK" never slips past a rule that names GB. */
#include "engine/evidence/places.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "engine/base/assert.h"

/* ISO 3166-1 alpha-2, all that are assigned. */
static const char iso_countries[] =
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR "
    "BS "
    "BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC "
    "EE "
    "EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK "
    "HM "
    "HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB "
    "LC "
    "LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ "
    "NA "
    "NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU "
    "RW "
    "SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN "
    "TO "
    "TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/* Member states; the outermost regions GP GF MQ RE YT MF (the Azores, Madeira and the Canaries are
 * in PT and ES); Aland. Not in it: the overseas countries and territories NC PF PM WF TF BL AW BQ
 * CW SX GL, and FO. */
static const char eu_countries[] =
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL "
    "PT RO SE SI SK GP GF MQ RE YT MF AX";

/* Svalbard and Jan Mayen have one code, and Svalbard is outside: so neither is in. */
static const char eea_beyond_eu[] = "IS LI NO";

/* The French Republic: mainland and Corsica, overseas departments, collectivities and territories.
 */
static const char french_countries[] = "FR GP GF MQ RE YT MF BL PM WF PF NC TF";

/* Subdivision codes of places that have a country code of their own. whole: the code means all of
 * it. */
static const struct {
	const char *subdivision;
	const char *country;
	bool whole;
} places_apart[] = {
    {"FR-971", "GP", true},  {"FR-972", "MQ", true},  {"FR-973", "GF", true},
    {"FR-974", "RE", true},  {"FR-976", "YT", true},  {"FR-GP", "GP", true},
    {"FR-MQ", "MQ", true},   {"FR-GF", "GF", true},   {"FR-RE", "RE", true},
    {"FR-YT", "YT", true},   {"FR-BL", "BL", true},   {"FR-MF", "MF", true},
    {"FR-PM", "PM", true},   {"FR-WF", "WF", true},   {"FR-PF", "PF", true},
    {"FR-NC", "NC", true},   {"FR-TF", "TF", true},   {"FI-01", "AX", true},
    {"NO-21", "SJ", false},  {"NO-22", "SJ", false},  {"NL-AW", "AW", true},
    {"NL-CW", "CW", true},   {"NL-SX", "SX", true},   {"NL-BQ1", "BQ", false},
    {"NL-BQ2", "BQ", false}, {"NL-BQ3", "BQ", false}, {"US-AS", "AS", true},
    {"US-GU", "GU", true},   {"US-MP", "MP", true},   {"US-PR", "PR", true},
    {"US-UM", "UM", true},   {"US-VI", "VI", true},   {"CN-HK", "HK", true},
    {"CN-MO", "MO", true},   {"CN-TW", "TW", true},
};

/* Regions of mainland France and Corsica, and the departments in them. */
static const struct {
	const char *region;
	const char *departments; /* without "FR-" */
} french_regions[] = {
    {"FR-ARA", "01 03 07 15 26 38 42 43 63 69 69M 73 74"},
    {"FR-BFC", "21 25 39 58 70 71 89 90"},
    {"FR-BRE", "22 29 35 56"},
    {"FR-CVL", "18 28 36 37 41 45"},
    {"FR-20R", "2A 2B"},
    {"FR-COR", "2A 2B"},
    {"FR-GES", "08 10 51 52 54 55 57 67 68 88 6AE"},
    {"FR-6AE", "67 68"},
    {"FR-HDF", "02 59 60 62 80"},
    {"FR-IDF", "75 75C 77 78 91 92 93 94 95"},
    {"FR-NOR", "14 27 50 61 76"},
    {"FR-NAQ", "16 17 19 23 24 33 40 47 64 79 86 87"},
    {"FR-OCC", "09 11 12 30 31 32 34 46 48 65 66 81 82"},
    {"FR-PDL", "44 49 53 72 85"},
    {"FR-PAC", "04 05 06 13 83 84"},
};

static bool is_upper2(const char *p)
{
	return p[0] >= 'A' && p[0] <= 'Z' && p[1] >= 'A' && p[1] <= 'Z';
}

/* Whether the first size bytes of word are one of the words in list, which a blank separates. */
static bool in_list(const char *list, const char *word, size_t size)
{
	const char *p = list;

	while (*p != '\0') {
		size_t len = strcspn(p, " ");

		if (len == size && memcmp(p, word, size) == 0)
			return true;
		p += len + (p[len] == ' ');
	}
	return false;
}

static void countries_add(uint64_t *countries, const char *list)
{
	for (const char *p = list; *p != '\0'; p += p[2] == ' ' ? 3 : 2) {
		unsigned bit = (unsigned)(p[0] - 'A') * 26u + (unsigned)(p[1] - 'A');

		INVARIANT(is_upper2(p));
		countries[bit / 64] |= 1ull << (bit % 64);
	}
}

bool country_is_known(const char *text)
{
	return strlen(text) == 2 && is_upper2(text) && in_list(iso_countries, text, 2);
}

int jurisdiction_parse(const char *text, bool in_rule, struct jurisdiction *ret_jurisdiction)
{
	struct jurisdiction j = {.text = text};
	struct jurisdiction all = {0};
	bool negated = in_rule && text[0] == '!';
	const char *name = text + negated;

	countries_add(all.countries, iso_countries);
	if (strcmp(name, "EU") == 0 || strcmp(name, "EEA") == 0)
		countries_add(j.countries, eu_countries);
	if (strcmp(name, "EEA") == 0)
		countries_add(j.countries, eea_beyond_eu);
	else if (in_rule && !negated && strcmp(name, "any") == 0)
		j = all;
	else if (country_is_known(name))
		countries_add(j.countries, name);
	else if (strcmp(name, "EU") != 0)
		return -EINVAL;
	for (size_t i = 0; negated && i < COUNTRY_WORDS; i++)
		j.countries[i] = all.countries[i] & ~j.countries[i];
	j.text = text;
	*ret_jurisdiction = j;
	return 0;
}

bool jurisdiction_within(const struct jurisdiction *inner, const struct jurisdiction *outer)
{
	for (size_t i = 0; i < COUNTRY_WORDS; i++)
		if ((inner->countries[i] & ~outer->countries[i]) != 0)
			return false;
	return true;
}

bool jurisdiction_meets(const struct jurisdiction *a, const struct jurisdiction *b)
{
	for (size_t i = 0; i < COUNTRY_WORDS; i++)
		if ((a->countries[i] & b->countries[i]) != 0)
			return true;
	return false;
}

/* -1: the place has no country code of its own. */
static int place_apart(const char *subdivision)
{
	for (size_t i = 0; i < ARRAY_SIZE(places_apart); i++)
		if (strcmp(places_apart[i].subdivision, subdivision) == 0)
			return (int)i;
	return -1;
}

static bool is_metropolitan(const char *subdivision)
{
	if (strncmp(subdivision, "FR-", 3) != 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(french_regions); i++)
		if (strcmp(french_regions[i].region, subdivision) == 0 ||
		    in_list(french_regions[i].departments, subdivision + 3,
			    strlen(subdivision + 3)))
			return true;
	return false;
}

bool subdivision_is_known(const char *text)
{
	size_t len = strlen(text);

	if (len < 4 || len > 6 || text[2] != '-' || !is_upper2(text) ||
	    !in_list(iso_countries, text, 2))
		return false;
	for (const char *p = text + 3; *p != '\0'; p++)
		if (!(*p >= 'A' && *p <= 'Z') && !isdigit((unsigned char)*p))
			return false;
	return strncmp(text, "FR-", 3) != 0 || is_metropolitan(text) || place_apart(text) >= 0;
}

bool territory_is_known(const char *text)
{
	return strcmp(text, "FR-metropolitan") == 0 || strcmp(text, "EU") == 0 ||
	       strcmp(text, "EEA") == 0 || strcmp(text, "any") == 0 || country_is_known(text) ||
	       subdivision_is_known(text);
}

bool place_agrees(const char *country, const char *territory)
{
	int apart;

	if (strcmp(country, territory) == 0)
		return true;
	apart = place_apart(territory);
	if (apart >= 0)
		return strcmp(places_apart[apart].country, country) == 0;
	return strlen(territory) > 3 && strncmp(country, territory, 2) == 0;
}

/* wanted is a subdivision: the same, another code of the same place, or a region that holds it. */
static bool subdivision_holds(const char *wanted, const char *country, const char *territory)
{
	int apart = place_apart(wanted);

	if (strcmp(wanted, territory) == 0)
		return true;
	if (apart >= 0)
		return places_apart[apart].whole &&
		       strcmp(places_apart[apart].country, country) == 0;
	if (strncmp(territory, "FR-", 3) != 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(french_regions); i++)
		if (strcmp(french_regions[i].region, wanted) == 0)
			return in_list(french_regions[i].departments, territory + 3,
				       strlen(territory + 3));
	return false;
}

bool place_within(const char *country, const char *territory, const char *wanted)
{
	PRE(place_agrees(country, territory));
	if (strcmp(wanted, "any") == 0)
		return true;
	if (strcmp(wanted, "FR-metropolitan") == 0)
		return strcmp(country, "FR") == 0 && is_metropolitan(territory);
	if (strcmp(wanted, "FR") == 0)
		return in_list(french_countries, country, 2);
	if (strcmp(wanted, "EU") == 0)
		return in_list(eu_countries, country, 2);
	if (strcmp(wanted, "EEA") == 0)
		return in_list(eu_countries, country, 2) || in_list(eea_beyond_eu, country, 2);
	if (strlen(wanted) == 2)
		return strcmp(wanted, country) == 0;
	return subdivision_holds(wanted, country, territory);
}

bool territory_within(const char *inner, const char *outer)
{
	char country[3] = {inner[0], inner[1], '\0'};
	int apart;

	if (strcmp(inner, outer) == 0 || strcmp(outer, "any") == 0)
		return true;
	/* Sets: the French Republic reaches further than the EU. */
	if (strcmp(inner, "FR-metropolitan") == 0)
		return strcmp(outer, "FR") == 0 || strcmp(outer, "EU") == 0 ||
		       strcmp(outer, "EEA") == 0;
	if (strcmp(inner, "EU") == 0)
		return strcmp(outer, "EEA") == 0;
	if (strcmp(inner, "FR") == 0 || strcmp(inner, "EEA") == 0 || strcmp(inner, "any") == 0)
		return false;
	if (strlen(inner) == 2)
		return place_within(inner, inner, outer);
	apart = place_apart(inner);
	return place_within(apart >= 0 ? places_apart[apart].country : country, inner, outer);
}
