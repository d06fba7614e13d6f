// scron [-n] IMAGE OUTPUT COMMAND: gives the controller a crontab of one line, every minute, with "#SCRON --container=IMAGE"
// and "#SCRON -o OUTPUT", and prints the job's number. With -n the job has no environment at all. Without arguments
// the crontab is removed, as by "scrontab -r".
// Debian's Slurm has the library's call and the controller's part, but not the command scrontab. The job is what
// scrontab.c makes of the same file: no request, and an environment of one variable.
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>

// Of src/common/cron.h; what makes and frees one is in libslurmfull only.
struct cron_entry {
	uint32_t flags;
	void *fields[5];
	char *cronspec, *command;
	uint32_t line_start, line_end;
};
enum { EVERY_TIME = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 };
extern struct cron_entry *new_cron_entry(void);
extern List slurm_list_create(void (*free_item)(void *));
extern void *slurm_list_append(List list, void *item);

int main(int argc, char **argv)
{
	int bare = argc > 1 && !strcmp(argv[1], "-n");
	argc -= bare;
	argv += bare;
	if (argc != 1 && argc != 4) {
		fputs("usage: scron [[-n] IMAGE OUTPUT COMMAND]\n", stderr);
		return 2;
	}
	slurm_init(NULL);
	if (argc == 1) {
		int error = slurm_remove_crontab(getuid(), getgid());
		if (error)
			fprintf(stderr, "scron: %s\n", slurm_strerror(error));
		return error != 0;
	}

	char text[4096], script[4096];
	snprintf(text, sizeof text, "#SCRON --container=%s\n#SCRON -o %s\n* * * * * %s\n", argv[1], argv[2], argv[3]);
	snprintf(script, sizeof script, "#!/bin/sh\n# crontab time request was: '* * * * *'\n%s\n", argv[3]);
	struct cron_entry *entry = new_cron_entry();
	entry->flags = EVERY_TIME;
	entry->cronspec = strdup("* * * * *");
	entry->command = argv[3];
	entry->line_start = entry->line_end = 3;

	char *environment[] = { "SLURM_GET_USER_ENV=1", NULL };
	job_desc_msg_t job;
	slurm_init_job_desc_msg(&job);
	job.crontab_entry = entry;
	job.container = argv[1];
	job.std_out = argv[2];
	job.std_in = job.std_err = "/dev/null";
	job.name = "scron";
	job.script = script;
	if (!bare) {
		job.environment = environment;
		job.env_size = 1;
	}
	job.argc = 1;
	job.argv = &argv[3];
	job.user_id = getuid();
	job.group_id = getgid();
	job.work_dir = getpwuid(getuid())->pw_dir;
	List jobs = slurm_list_create(NULL);
	slurm_list_append(jobs, &job);

	crontab_update_response_msg_t *answer = slurm_update_crontab(getuid(), getgid(), text, jobs);
	if (answer->return_code || answer->jobids_count != 1) {
		fprintf(stderr, "scron: %s: %s\n", slurm_strerror(answer->return_code), answer->err_msg ? answer->err_msg : "");
		return 1;
	}
	printf("%u\n", answer->jobids[0]);
	return 0;
}
