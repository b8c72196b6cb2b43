/* pave completion: a completion script, made from the table of commands, so that it is never behind
 * it. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/pave/cmd.h"

static const char head[] =
    "# bash completion of pave; made by `pave completion bash`\n"
    "_pave()\n"
    "{\n"
    "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} w words=()\n"
    "\tfor w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
    "\t\t[[ $w == -* ]] || words+=(\"$w\")\n"
    "\tdone\n"
    "\tcase $prev in\n"
    "\t--cluster | --dir | --root | --key | --out | --file | --revocations | --ca-key | --seen)\n"
    "\t\tCOMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
    "\t--policy)\n"
    "\t\tCOMPREPLY=($(compgen -W 'secnumcloud-fr cloud-de-confiance hds dev' -f -- \"$cur\")); "
    "return "
    ";;\n"
    "\tesac\n"
    "\tif [[ $cur == -* ]]; then\n"
    "\t\tCOMPREPLY=($(compgen -W \"--cluster --json --insecure --help --version $(_pave_options "
    "\"${words[*]:0:2}\")\" "
    "-- \"$cur\")); return\n"
    "\tfi\n"
    "\tcase ${words[*]:0:2} in\n";

static const char tail[] = "\tesac\n"
			   "}\n"
			   "complete -o default -F _pave pave\n";

/* Words that may follow `first`, or that may stand first (NULL). */
static void print_words(const char *first)
{
	const char *last = "";
	size_t last_len = 0;

	for (const struct command *c = commands; c->name != NULL; c++) {
		const char *space = strchr(c->name, ' ');
		size_t len = space != NULL ? (size_t)(space - c->name) : strlen(c->name);

		if (first == NULL) {
			if (len != last_len || strncmp(last, c->name, len) != 0)
				printf("%s%.*s", last_len > 0 ? " " : "", (int)len, c->name);
			last = c->name;
			last_len = len;
		} else if (space != NULL && strlen(first) == len &&
			   strncmp(c->name, first, len) == 0) {
			printf("%s ", space + 1);
		}
	}
}

/* What helps itself tells no usage (struct command.raw): by its first two words. */
static const struct {
	const char *name, *options;
} raw_options[] = {
    {"policy check", "--policy --site --revocations --root --at --seen"},
    {"evidence keygen", "--out --keyid"},
    {"evidence sign", "--key --type --out"},
    {"evidence verify", "--root"},
};

/* Every "--word" of the usage, once. */
static void print_options(const char *usage)
{
	for (const char *p = strstr(usage, "--"); p != NULL; p = strstr(p + 2, "--")) {
		size_t len = 2 + strspn(p + 2, "abcdefghijklmnopqrstuvwxyz-");

		if (len > 2)
			printf(" %.*s", (int)len, p);
	}
}

static void print_script(void)
{
	printf("_pave_options()\n{\n\tcase $1 in\n");
	for (const struct command *c = commands; c->name != NULL; c++) {
		if (strstr(c->usage, "--") == NULL)
			continue;
		printf("\t\"%s\"%s) echo", c->name, strchr(c->name, ' ') == NULL ? "*" : "");
		print_options(c->usage);
		printf(" ;;\n");
	}
	for (size_t i = 0; i < ARRAY_SIZE(raw_options); i++)
		printf("\t\"%s\") echo %s ;;\n", raw_options[i].name, raw_options[i].options);
	printf("\tesac\n}\n%s\t\"\")\n\t\tCOMPREPLY=($(compgen -W '", head);
	print_words(NULL);
	printf(" help' -- \"$cur\")) ;;\n");
	for (const struct command *c = commands; c->name != NULL; c++) {
		const char *space = strchr(c->name, ' ');
		char first[32];
		bool seen = false;

		if (space == NULL)
			continue;
		snprintf(first, sizeof first, "%.*s", (int)(space - c->name), c->name);
		for (const struct command *b = commands; b != c && !seen; b++)
			seen = strncmp(b->name, c->name, strlen(first) + 1) == 0;
		if (seen)
			continue;
		printf("\t%s)\n\t\tCOMPREPLY=($(compgen -W '", first);
		print_words(first);
		if (strcmp(first, "policy") == 0)
			printf("check list show ");
		printf("' -- \"$cur\")) ;;\n");
	}
	printf("\tevidence)\n\t\tCOMPREPLY=($(compgen -W 'keygen sign verify show' -- \"$cur\")) "
	       ";;\n"
	       "\t'node device')\n\t\t(( ${#words[@]} > 2 )) ||\n"
	       "\t\t\tCOMPREPLY=($(compgen -W 'list add retire' -- \"$cur\")) ;;\n"
	       "\tcompletion)\n\t\tCOMPREPLY=($(compgen -W bash -- \"$cur\")) ;;\n%s",
	       tail);
}

int cmd_completion(int argc, char **argv)
{
	static const struct option no_options[] = {{0}};
	const char *shell;

	if (getopt_long(argc, argv, "", no_options, NULL) != -1)
		return cmd_usage_error("it has no such option");
	shell = cmd_operand(argc, argv, "shell (bash)");
	if (shell == NULL)
		return 2;
	if (strcmp(shell, "bash") != 0)
		return cmd_usage_error("there is a completion for bash, not for %s", shell);
	print_script();
	return 0;
}
