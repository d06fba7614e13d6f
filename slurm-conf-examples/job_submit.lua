-- /etc/slurm/job_submit.lua of the controller, read with JobSubmitPlugins=lua in slurm.conf.
-- What slurmrestd and scrontab submit has passed no SPANK plugin: it brings no request to the nodes, and would run
-- there without a container whatever its `container` says. Here the image goes where the nodes look for it, too.
-- A site with a script of its own takes coracle_container into it and calls it last.

local function coracle_container(job_desc)
	local image = job_desc.container
	-- salloc and srun have no script here, and their steps make their own requests.
	if image == nil or image == '' or image == 'none' or job_desc.script == nil then
		return slurm.SUCCESS
	end
	local environment = job_desc.environment
	-- sbatch has the plugin.
	if environment['SLURM_CORACLE_REQUEST'] ~= nil then
		return slurm.SUCCESS
	end
	-- The nodes do not know which directory a relative path was meant from; a name like docker://… is for them to refuse.
	if not image:find('^/') and not image:find('^[%w+.-]+:') and job_desc.work_dir ~= nil then
		image = job_desc.work_dir .. '/' .. image
	end
	environment['SLURM_CONTAINER'] = image
	-- A job with a container may have no environment at all, and then cannot take the image along.
	if environment['SLURM_CONTAINER'] ~= image then
		slurm.log_user('coracle: ' .. image .. ': a job with a container needs an environment')
		return slurm.ERROR
	end
	return slurm.SUCCESS
end

function slurm_job_submit(job_desc, part_list, submit_uid)
	return coracle_container(job_desc)
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
	return slurm.SUCCESS
end
