/* The policies that ship with the product, as documents: see DOCUMENTS.md, "Presets", for the
 * reasons. They are text in the parser's own format, so that a preset and a signed file go the same
 * way. */
#include <string.h>

#include "engine/base/types.h"
#include "engine/evidence/documents.h"

/* The rules that a SecNumCloud qualification stands for, checked by themselves as well. */
#define EUROPEAN_HANDS                                                                             \
	"\"ownership\": {\"home\": \"EU\", \"max_individual_ppm\": 240000,\n"                      \
	"  \"max_collective_ppm\": 390000, \"veto\": false, \"board_majority\": false},\n"         \
	"\"operator\": {\"seat\": \"EU\", \"central_administration\": \"EU\",\n"                   \
	"  \"main_establishment\": \"EU\"},\n"                                                     \
	"\"forbidden_jurisdictions\": {\"operator\": [], \"supplier\": [],\n"                      \
	"  \"technical_access\": [\"!EU\"], \"admin\": [\"!EU\"], \"support\": [\"!EU\"]},\n"      \
	"\"exposure\": [],\n"

#define THREE_CAMPUSES                                                                             \
	"\"replicas\": 3, \"min_acks\": 2, \"distinct\": \"campus\", \"min_distance_km\": 0,\n"    \
	"\"hosts\": \"eligible\", \"staleness_s\": 86400,\n"                                       \
	"\"on_loss\": {\"action\": \"freeze\", \"timeout_s\": 30}, \"erase\": \"overwrite\"\n"

static const struct {
	const char *name;
	const char *json;
} presets[] = {
    {"secnumcloud-fr",
     "{\"type\": \"policy\", \"name\": \"secnumcloud-fr\", \"version\": 1,\n"
     "\"issued_at\": \"2026-11-01T00:00:00Z\", \"critical\": [],\n"
     "\"territory\": [\"FR\"],\n"
     "\"labels\": [{\"scheme\": \"SecNumCloud\", \"min_version\": \"3.2\", \"layer\": \"iaas\",\n"
     "  \"status\": \"qualified\"}],\n" EUROPEAN_HANDS THREE_CAMPUSES "}\n"},
    {"cloud-de-confiance",
     "{\"type\": \"policy\", \"name\": \"cloud-de-confiance\", \"version\": 1,\n"
     "\"issued_at\": \"2026-11-01T00:00:00Z\", \"critical\": [],\n"
     "\"territory\": [\"FR\"], \"labels\": [],\n" EUROPEAN_HANDS THREE_CAMPUSES "}\n"},
    {"hds", "{\"type\": \"policy\", \"name\": \"hds\", \"version\": 1,\n"
	    "\"issued_at\": \"2026-11-01T00:00:00Z\", \"critical\": [],\n"
	    "\"territory\": [\"EEA\"],\n"
	    "\"labels\": [{\"scheme\": \"HDS\", \"min_version\": \"2.0\", \"layer\": \"iaas\",\n"
	    "  \"status\": \"qualified\"}],\n"
	    "\"ownership\": {\"home\": \"any\", \"max_individual_ppm\": 1000000,\n"
	    "  \"max_collective_ppm\": 1000000, \"veto\": true, \"board_majority\": true},\n"
	    "\"operator\": {\"seat\": \"any\", \"central_administration\": \"any\",\n"
	    "  \"main_establishment\": \"any\"},\n"
	    "\"forbidden_jurisdictions\": {\"operator\": [], \"supplier\": [],\n"
	    "  \"technical_access\": [\"!EEA\"], \"admin\": [\"!EEA\"], \"support\": [\"!EEA\"]},\n"
	    "\"exposure\": [],\n" THREE_CAMPUSES "}\n"},
    {"dev",
     "{\"type\": \"policy\", \"name\": \"dev\", \"version\": 1,\n"
     "\"issued_at\": \"2026-11-01T00:00:00Z\", \"critical\": [],\n"
     "\"territory\": [\"any\"], \"labels\": [],\n"
     "\"ownership\": {\"home\": \"any\", \"max_individual_ppm\": 1000000,\n"
     "  \"max_collective_ppm\": 1000000, \"veto\": true, \"board_majority\": true},\n"
     "\"operator\": {\"seat\": \"any\", \"central_administration\": \"any\",\n"
     "  \"main_establishment\": \"any\"},\n"
     "\"forbidden_jurisdictions\": {\"operator\": [], \"supplier\": [], \"technical_access\": [],\n"
     "  \"admin\": [], \"support\": []},\n"
     "\"exposure\": [\"any\"],\n"
     "\"replicas\": 3, \"min_acks\": 2, \"distinct\": \"site\", \"min_distance_km\": 0,\n"
     "\"hosts\": \"any\", \"staleness_s\": 86400,\n"
     "\"on_loss\": {\"action\": \"freeze\", \"timeout_s\": 30}, \"erase\": \"discard\"}\n"},
};

static const char *const names[] = {"secnumcloud-fr", "cloud-de-confiance", "hds", "dev", NULL};

const char *policy_preset(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(presets); i++)
		if (strcmp(presets[i].name, name) == 0)
			return presets[i].json;
	return NULL;
}

const char *const *policy_preset_names(void)
{
	return names;
}
