/* pattern: see pattern.h. */
#include "bench/pattern.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/assert.h"
#include "engine/base/text.h"

/* -- descriptions ----------------------------------------------------------------------------- */

static int parse_size(char *text, struct pattern_size *ret, struct error *err)
{
	char *colon = strchr(text, ':');
	char *end = NULL;
	uint64_t bytes = 0;
	unsigned long weight = 1;

	if (colon != NULL) {
		*colon = '\0';
		weight = strtoul(colon + 1, &end, 10);
		if (end == colon + 1 || *end != '\0' || weight == 0 || weight > 1000000)
			return error_set(err, -EINVAL, "'%s': a weight from 1 to 1000000 is needed",
					 colon + 1);
	}
	if (text_parse_size(text, &bytes) != 0 || bytes == 0 || bytes > IO_SIZE_MAX ||
	    bytes % BLOCK_SIZE != 0)
		return error_set(err, -EINVAL, "'%s': a multiple of 4KiB up to 1MiB is needed",
				 text);
	*ret = (struct pattern_size){(uint32_t)bytes, (uint32_t)weight};
	return 0;
}

int pattern_parse_sizes(const char *text, struct pattern_spec *spec, struct error *err)
{
	struct pattern_spec s = *spec;
	char buf[256];
	char *save = NULL;

	if (strlen(text) >= sizeof buf)
		return error_set(err, -EINVAL, "the list of sizes is over %zu characters long",
				 sizeof buf - 1);
	memcpy(buf, text, strlen(text) + 1);
	s.size_count = 0;
	for (char *one = strtok_r(buf, ",/", &save); one != NULL;
	     one = strtok_r(NULL, ",/", &save)) {
		int rc;

		if (s.size_count == PATTERN_SIZES_MAX)
			return error_set(err, -EINVAL, "over %u sizes in one mix",
					 PATTERN_SIZES_MAX);
		rc = parse_size(one, &s.sizes[s.size_count++], err);
		if (rc != 0)
			return rc;
	}
	if (s.size_count == 0)
		return error_set(err, -EINVAL, "a size as 4KiB, or a mix as 4KiB:70,64KiB:30");
	*spec = s;
	return 0;
}

int pattern_parse_rw(const char *text, struct pattern_spec *spec, struct error *err)
{
	const bool random = strncmp(text, "rand", 4) == 0;
	const char *kind = random ? text + 4 : text;

	if (strcmp(kind, "write") == 0)
		spec->read_percent = 0;
	else if (strcmp(kind, "read") == 0)
		spec->read_percent = 100;
	else if (strcmp(kind, "rw") == 0)
		spec->read_percent = 70;
	else
		return error_set(err, -EINVAL,
				 "'%s': choose randwrite, randread, randrw, write, read or rw",
				 text);
	spec->random = random;
	return 0;
}

uint32_t pattern_size_max(const struct pattern_spec *spec)
{
	uint32_t max = 0;

	for (uint32_t i = 0; i < spec->size_count; i++)
		max = MAX(max, spec->sizes[i].bytes);
	return max;
}

/* -- random numbers ---------------------------------------------------------------------------- */

/* xorshift64*, Vigna 2016: enough for choosing offsets. */
uint64_t pattern_random(struct pattern *p)
{
	uint64_t x = p->random_state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	p->random_state = x;
	return x * 0x2545f4914f6cdd1dull;
}

double pattern_uniform(struct pattern *p)
{
	return (double)((pattern_random(p) >> 11) + 1) * 0x1p-53;
}

/* log(1 + x) / x and (exp(x) - 1) / x, also where x is nearly 0: the exponent may be 1. */
static double log1p_over(double x)
{
	return fabs(x) > 1e-8 ? log1p(x) / x : 1 - x * (0.5 - x / 3);
}

static double expm1_over(double x)
{
	return fabs(x) > 1e-8 ? expm1(x) / x : 1 + x * 0.5 * (1 + x / 3);
}

/* The integral of x^-exponent, and its inverse. */
static double h_integral(const struct zipf *z, double x)
{
	const double l = log(x);

	return expm1_over((1 - z->exponent) * l) * l;
}

static double h_inverse(const struct zipf *z, double y)
{
	const double t = MAX(y * (1 - z->exponent), -1.0);

	return exp(log1p_over(t) * y);
}

static double h(const struct zipf *z, double x)
{
	return exp(-z->exponent * log(x));
}

void zipf_init(struct zipf *z, uint64_t count, double exponent)
{
	PRE(count > 0 && exponent > 0);
	*z = (struct zipf){.exponent = exponent, .count = count};
	z->h_x1 = h_integral(z, 1.5) - 1;
	z->h_n = h_integral(z, (double)count + 0.5);
	z->s = 2 - h_inverse(z, h_integral(z, 2.5) - h(z, 2));
}

uint64_t zipf_next(const struct zipf *z, struct pattern *p)
{
	for (;;) {
		const double u = z->h_n + pattern_uniform(p) * (z->h_x1 - z->h_n);
		const double x = h_inverse(z, u);
		const double k = MIN(MAX(floor(x + 0.5), 1.0), (double)z->count);

		if (k - x <= z->s || u >= h_integral(z, k + 0.5) - h(z, k))
			return (uint64_t)k;
	}
}

/* -- the stream -------------------------------------------------------------------------------- */

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b != 0) {
		const uint64_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

void pattern_init(struct pattern *p, const struct pattern_spec *spec, uint64_t seed)
{
	PRE(spec->size_count > 0 && spec->range >= pattern_size_max(spec));
	*p = (struct pattern){.spec = *spec, .random_state = seed * 2 + 1};
	for (uint32_t i = 0; i < spec->size_count; i++) {
		const uint64_t places = spec->range / spec->sizes[i].bytes;
		uint64_t step = (uint64_t)((double)places * 0.6180339887) | 1;

		p->weight_sum += spec->sizes[i].weight;
		if (spec->zipf > 0)
			zipf_init(&p->zipf[i], places, spec->zipf);
		while (gcd(step, places) != 1)
			step += 2;
		p->scatter[i] = step;
	}
}

static uint32_t choose_size(struct pattern *p)
{
	uint64_t at;
	uint32_t i = 0;

	if (p->spec.size_count == 1)
		return 0;
	at = pattern_random(p) % p->weight_sum;
	while (at >= p->spec.sizes[i].weight)
		at -= p->spec.sizes[i++].weight;
	return i;
}

static uint64_t place(struct pattern *p, uint32_t i)
{
	const uint32_t size = p->spec.sizes[i].bytes;
	const uint64_t places = p->spec.range / size;
	uint64_t at;

	if (!p->spec.random) {
		at = ROUND_UP(p->cursor, size);
		if (at + size > p->spec.range)
			at = 0;
		p->cursor = at + size;
		return at;
	}
	if (p->spec.zipf > 0)
		/* Both are below 2^32 for targets of up to 16 TiB; beyond that it only scatters
		 * less well. */
		at = (zipf_next(&p->zipf[i], p) - 1) * p->scatter[i] % places;
	else
		at = pattern_random(p) % places;
	return at * size;
}

struct pattern_op pattern_next(struct pattern *p)
{
	const uint32_t i = choose_size(p);
	struct pattern_op op = {.size = p->spec.sizes[i].bytes};

	op.write = p->spec.read_percent == 0 ||
		   (p->spec.read_percent < 100 && pattern_random(p) % 100 >= p->spec.read_percent);
	op.offset = p->spec.start + place(p, i);
	return op;
}

void pattern_beside(const struct pattern *p, struct pattern_op *op)
{
	op->offset += op->size;
	if (op->offset + op->size > p->spec.start + p->spec.range)
		op->offset = p->spec.start;
}

void pattern_again(struct pattern *p, struct pattern_op *op)
{
	for (uint32_t i = 0; i < p->spec.size_count; i++)
		if (p->spec.sizes[i].bytes == op->size) {
			op->offset = p->spec.start + place(p, i);
			return;
		}
}
