/* maintain: see maintain.h. */
#include "tools/pave-node/maintain.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/err.h"
#include "engine/base/log.h"
#include "engine/base/types.h"

extern char **environ;

static bool is_running(struct maintain *m)
{
	int status;

	if (m->child == 0)
		return false;
	if (waitpid(m->child, &status, WNOHANG) == 0)
		return true;
	m->child = 0;
	return false;
}

/* The pave-attach that lies beside this program. */
static int program_path(char *buf, size_t size)
{
	const ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	char *slash;

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	slash = strrchr(buf, '/');
	if (slash == NULL || (size_t)(slash - buf) + sizeof "/pave-attach" > size)
		return -ENAMETOOLONG;
	memcpy(slash, "/pave-attach", sizeof "/pave-attach");
	return 0;
}

static int spawn(struct maintain *m, const char *volume)
{
	char program[PATH_MAX];
	const char *argv[20] = {"pave-attach", volume,	   "--maintain", "--pd",      m->pd,
				"--root",      m->root,	   "--dir",	 m->seen_dir, "--site",
				m->site,       "--holder", m->holder};
	size_t n = 13;
	posix_spawn_file_actions_t actions;
	int rc = program_path(program, sizeof program);

	if (rc != 0)
		return rc;
	if (m->insecure)
		argv[n++] = "--insecure";
	if (m->cluster_dir != NULL) {
		argv[n++] = "--cluster-dir";
		argv[n++] = m->cluster_dir;
	}
	if (mkdir(m->seen_dir, 0700) != 0 && errno != EEXIST)
		return -errno;
	if (posix_spawn_file_actions_init(&actions) != 0)
		return -ENOMEM;
	/* It says what it does on stderr, and has nothing else of the node. */
	rc = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&actions, 2, 1);
	if (rc == 0)
		rc = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	if (rc == 0)
		rc = posix_spawn(&m->child, program, &actions, NULL, (char *const *)(uintptr_t)argv,
				 environ);
	posix_spawn_file_actions_destroy(&actions);
	return -rc;
}

/* "#7": it becomes an argument. */
static bool is_number(const char *volume)
{
	return volume[0] == '#' && volume[1] != '\0' && strlen(volume) < NAME_SIZE_MAX &&
	       strspn(volume + 1, "0123456789") == strlen(volume + 1);
}

void maintain_volume(struct maintain *m, const char *volume)
{
	int rc;

	if (is_running(m) || !is_number(volume))
		return;
	snprintf(m->seen_dir, sizeof m->seen_dir, "%s/maintain", m->dir);
	snprintf(m->holder, sizeof m->holder, "%.63s", m->name);
	rc = spawn(m, volume);
	if (rc != 0) {
		m->child = 0;
		log_warn("node", "cannot start pave-attach for the maintenance of volume %s: %s",
			 volume, err_text(rc));
		return;
	}
	log_info("node", "volume %s: attached for maintenance, by process %d", volume,
		 (int)m->child);
}

void maintain_stop(struct maintain *m)
{
	if (is_running(m))
		kill(m->child, SIGTERM);
}
