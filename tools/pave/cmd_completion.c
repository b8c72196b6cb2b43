/* pave completion: a completion script, made from the table of commands, so that it is never behind
 * it. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/pave/cmd.h"

static const char head[] =
    "# bash completion of pave; made by `pave completion bash`\n"
    "# The names of volumes, nodes or sites, as the cluster that the line names has them.\n"
    "_pave_names()\n"
    "{\n"
    "\ttimeout 3 pave \"${cluster[@]}\" $1 list --json 2>/dev/null |\n"
    "\t\tsed -n 's/^ *\"'$2'\": \"\\([^\"]*\\)\".*/\\1/p' | sort -u\n"
    "}\n"
    "# Those of the policies: the presets, and what is in force.\n"
    "_pave_policies()\n"
    "{\n"
    "\t{ PAVE_CLUSTER= pave policy list 2>/dev/null; _pave_names policy policy; } | sort -u\n"
    "}\n"
    "_pave()\n"
    "{\n"
    "\tlocal cur prev i w line=() words=() cluster=()\n"
    "\t# bash breaks names apart at \"@\" and \":\"; here they are whole again.\n"
    "\tfor ((i = 1; i <= COMP_CWORD; i++)); do\n"
    "\t\tw=${COMP_WORDS[i]}\n"
    "\t\tif ((${#line[@]} > 0)) && [[ $w == [@:]* || ${line[-1]} == *[@:] ]]; then\n"
    "\t\t\tline[-1]+=$w\n"
    "\t\telse\n"
    "\t\t\tline+=(\"$w\")\n"
    "\t\tfi\n"
    "\tdone\n"
    "\tcur=${line[*]: -1}\n"
    "\tprev=${line[*]: -2:1}\n"
    "\tfor ((i = 0; i + 1 < ${#line[@]}; i++)); do\n"
    "\t\tif [[ ${line[i]} == --cluster ]]; then\n"
    "\t\t\tcluster=(--cluster \"${line[++i]}\")\n"
    "\t\telif [[ ${line[i]} != -* ]]; then\n"
    "\t\t\twords+=(\"${line[i]}\")\n"
    "\t\tfi\n"
    "\tdone\n"
    "\t_pave_offer\n"
    "\t# What stands before the last break is kept by bash.\n"
    "\tw=${cur%\"${cur##*[@:]}\"}\n"
    "\tfor ((i = 0; i < ${#COMPREPLY[@]}; i++)); do\n"
    "\t\tCOMPREPLY[i]=${COMPREPLY[i]#\"$w\"}\n"
    "\tdone\n"
    "}\n"
    "_pave_offer()\n"
    "{\n"
    "\tcase $prev in\n"
    "\t--cluster | --dir | --root | --key | --out | --file | --revocations | --ca-key | --seen | "
    "--state)\n"
    "\t\tCOMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
    "\t--policy)\n"
    "\t\tCOMPREPLY=($(compgen -W \"$(_pave_policies)\" -f -- \"$cur\")); return ;;\n"
    "\t--transport)\n"
    "\t\tCOMPREPLY=($(compgen -W 'auto tcp rdma' -- \"$cur\")); return ;;\n"
    "\t--register)\n"
    "\t\tCOMPREPLY=($(compgen -W 'rocksdb etcd' -- \"$cur\")); return ;;\n"
    "\t--type)\n"
    "\t\tCOMPREPLY=($(compgen -W 'root site revocations policy' -- \"$cur\")); return ;;\n"
    "\t--site)\n"
    "\t\tif [[ ${words[*]:0:2} == 'policy check' ]]; then\n"
    "\t\t\tCOMPREPLY=($(compgen -f -- \"$cur\")); return\n"
    "\t\tfi\n"
    "\t\tCOMPREPLY=($(compgen -W \"$(_pave_names site site)\" -- \"$cur\")); return ;;\n"
    "\tesac\n"
    "\tif [[ $cur == -* ]]; then\n"
    "\t\tCOMPREPLY=($(compgen -W \"--cluster --json --insecure --help --version $(_pave_options "
    "\"${words[*]:0:2}\")\" -- \"$cur\")); return\n"
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

/* Which names the first operand is one of: by how the usage calls it. NULL: of none that is there.
 */
static const char *operand_kind(const struct command *c)
{
	const char *u = c->usage + (c->usage[0] == '[');

	if (strcmp(c->name, "volume create") == 0 || strcmp(c->name, "node add") == 0)
		return NULL;
	if (strncmp(u, "NAME", 4) == 0 || strncmp(u, "VOLUME", 6) == 0)
		return "volume name";
	if (strncmp(u, "NODE", 4) == 0)
		return "node node";
	return strncmp(u, "SITE", 4) == 0 ? "site site" : NULL;
}

/* The names of what is there, for the first operand; of two that are compared, for both. */
static void print_operands(void)
{
	for (const struct command *c = commands; c->name != NULL; c++) {
		const char *kind = operand_kind(c);
		int max = strchr(c->name, ' ') != NULL ? 2 : 1;

		if (kind == NULL)
			continue;
		if (strcmp(c->name, "volume diff") == 0)
			max++;
		printf("\t'%s')\n\t\t(( ${#words[@]} > %d )) ||\n"
		       "\t\t\tCOMPREPLY=($(compgen -W \"$(_pave_names %s)\" -- \"$cur\")) ;;\n",
		       c->name, max, kind);
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

/* Every "--word" that the usage takes: of its first line, and in brackets; what else it tells of
 * are options of other commands, or the same again. */
static void print_options(const char *usage)
{
	const char *line_end = usage + strcspn(usage, "\n");

	for (const char *p = strstr(usage, "--"); p != NULL; p = strstr(p + 2, "--")) {
		size_t len = 2 + strspn(p + 2, "abcdefghijklmnopqrstuvwxyz-");

		if (len > 2 && (p < line_end || p[-1] == '['))
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
			printf("check ");
		printf("' -- \"$cur\")) ;;\n");
	}
	print_operands();
	printf("\tevidence)\n\t\tCOMPREPLY=($(compgen -W 'keygen sign verify show' -- \"$cur\")) "
	       ";;\n"
	       "\t'policy show')\n\t\t(( ${#words[@]} > 2 )) ||\n"
	       "\t\t\tCOMPREPLY=($(compgen -W \"$(_pave_policies)\" -- \"$cur\")) ;;\n"
	       "\t'node device')\n\t\tcase ${#words[@]} in\n"
	       "\t\t2) COMPREPLY=($(compgen -W 'list add retire' -- \"$cur\")) ;;\n"
	       "\t\t3) COMPREPLY=($(compgen -W \"$(_pave_names node node)\" -- \"$cur\")) ;;\n"
	       "\t\tesac ;;\n"
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
