/* A map of France (mainland and Corsica) as SVG, drawn from a coarse outline, with the sites of a
 * volume's copies. Plate carrée with the parallel 46.5 N true to scale. Sites elsewhere are listed
 * beneath. */
#include <math.h>
#include <string.h>

#include "tools/pave/audit.h"

#define WIDTH	 520.0
#define HEIGHT	 520.0
#define WEST	 (-5.3)
#define NORTH	 51.4
#define SCALE	 50.0  /* pixels a degree of latitude */
#define NARROWER 0.688 /* cosine of 46.5 degrees */

struct point {
	double longitude, latitude;
};

static const struct point mainland[] = {
    {2.5, 51.1},   {1.9, 50.97},   {1.58, 50.75},  {1.55, 50.2},   {1.05, 49.93},  {0.15, 49.6},
    {0.1, 49.45},  {-0.3, 49.3},   {-1.25, 49.68}, {-1.93, 49.7},  {-1.6, 48.85},  {-2.0, 48.66},
    {-2.35, 48.7}, {-3.05, 48.8},  {-4.0, 48.72},  {-4.75, 48.4},  {-4.65, 48.05}, {-4.35, 47.8},
    {-3.4, 47.7},  {-3.1, 47.5},   {-2.25, 47.28}, {-2.1, 46.9},   {-1.8, 46.5},   {-1.15, 46.15},
    {-1.1, 45.6},  {-1.25, 44.65}, {-1.5, 43.55},  {-1.75, 43.35}, {-1.3, 43.05},  {-0.5, 42.8},
    {0.7, 42.8},   {1.45, 42.6},   {1.95, 42.4},   {3.15, 42.43},  {3.05, 42.9},   {3.15, 43.2},
    {3.75, 43.42}, {4.5, 43.38},   {5.3, 43.28},   {5.95, 43.07},  {6.65, 43.2},   {7.2, 43.65},
    {7.52, 43.78}, {7.6, 44.15},   {6.9, 44.4},	   {6.95, 44.85},  {6.65, 45.1},   {7.1, 45.35},
    {6.85, 45.83}, {6.8, 46.35},   {6.15, 46.15},  {6.1, 46.45},   {6.45, 46.8},   {6.95, 47.3},
    {7.55, 47.57}, {7.6, 48.1},	   {7.85, 48.6},   {8.2, 48.97},   {7.4, 49.17},   {6.6, 49.4},
    {5.8, 49.53},  {5.4, 49.55},   {4.85, 50.1},   {4.2, 49.97},   {4.1, 50.3},	   {3.3, 50.5},
    {3.1, 50.75},  {2.65, 50.82},
};
static const struct point corsica[] = {{9.4, 43.0},   {9.5, 42.6}, {9.55, 42.1},
				       {9.25, 41.4},  {8.8, 41.6}, {8.6, 41.95},
				       {8.57, 42.35}, {8.8, 42.6}, {9.25, 42.72}};

void audit_html_text(FILE *out, const char *text)
{
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '<')
			fputs("&lt;", out);
		else if (*p == '>')
			fputs("&gt;", out);
		else if (*p == '&')
			fputs("&amp;", out);
		else if (*p == '"')
			fputs("&quot;", out);
		else
			fputc(*p, out);
	}
}

static double x_of(double longitude)
{
	return (longitude - WEST) * SCALE * NARROWER;
}

static double y_of(double latitude)
{
	return (NORTH - latitude) * SCALE;
}

static void outline(FILE *out, const struct point *points, size_t count)
{
	fprintf(out, "<polygon class=\"land\" points=\"");
	for (size_t i = 0; i < count; i++)
		fprintf(out, "%.1f,%.1f ", x_of(points[i].longitude), y_of(points[i].latitude));
	fprintf(out, "\"/>\n");
}

static bool on_map(double latitude, double longitude)
{
	return x_of(longitude) >= 0 && x_of(longitude) <= WIDTH && y_of(latitude) >= 0 &&
	       y_of(latitude) <= HEIGHT;
}

/* Once for each site: the first node of it stands for all. */
static bool first_of_site(const struct history *h, const struct history_volume *v, uint32_t i,
			  const char *site)
{
	for (uint32_t j = 0; j < i; j++) {
		const struct history_node *n = history_find_node(h, v->nodes[j]);

		if (n != NULL && strcmp(n->site, site) == 0)
			return false;
	}
	return true;
}

static const char *site_class(const struct history *h, const struct history_volume *v,
			      const char *site)
{
	bool holds = false;

	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct history_node *n = history_find_node(h, v->nodes[i]);
		uint32_t count;

		if (n == NULL || strcmp(n->site, site) != 0)
			continue;
		json_decref(audit_chunks_json(v, n->name, &count));
		holds = holds || count > 0;
	}
	return holds && v->ended_at == 0 ? "holds" : "held";
}

void audit_map_svg(FILE *out, const struct history *h, const struct history_volume *v)
{
	fprintf(out,
		"<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"Sites on a map of "
		"France\">\n",
		WIDTH, HEIGHT);
	outline(out, mainland, sizeof mainland / sizeof mainland[0]);
	outline(out, corsica, sizeof corsica / sizeof corsica[0]);
	for (uint32_t i = 0; i < v->node_count; i++) {
		const struct history_node *n = history_find_node(h, v->nodes[i]);
		const struct site_document *site =
		    n != NULL ? history_site_version(h, n->site, 0) : NULL;
		double latitude, longitude;

		if (site == NULL || !first_of_site(h, v, i, n->site) ||
		    !site_position(site, &latitude, &longitude) || !on_map(latitude, longitude))
			continue;
		fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"7\"/>",
			site_class(h, v, n->site), x_of(longitude), y_of(latitude));
		fprintf(out, "<text x=\"%.1f\" y=\"%.1f\">", x_of(longitude) + 11,
			y_of(latitude) + 5);
		audit_html_text(out, n->site);
		fprintf(out, "</text>\n");
	}
	fprintf(out, "</svg>\n");
}
