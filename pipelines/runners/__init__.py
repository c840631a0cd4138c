"""One way to hand out work, on Ray or on this machine alone; the only folder that imports Ray.

    with open_runner(settings) as runner:                  # runners.choice; a RunnerSettings
        run_stage(runner, stage, dataset, workers)         # runners.shards: a stage over its shards
        caption_shards(runner, stage, dataset, workers)    # runners.captions: captions over blocks
        run_jobs(runner, jobs, workers)                    # runners.training: training runs
        run_once(runner, function, *arguments)             # runners.once: one call

All four hand tasks to a few long-lived workers by the one loop of `runners.hand_out`. Who the
workers are is the runner's affair (`runners.protocol`): actors on Ray, or processes of this machine
(the standard library's pool), or this very process. Nothing is started before there is work.
"""
