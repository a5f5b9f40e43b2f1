process XMODAL_CHECK {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    // names: the modality that each file holds (or h5, h5mu), in the order of `files`; [] where the files tell
    // checkpoint: a model that is to predict from these cells, or []
    tuple val(meta), val(names), path(files, stageAs: 'input?/*'), path(checkpoint, stageAs: 'checkpoint/*')

    output:
    tuple val(meta), path("*.check.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def model = checkpoint ? "--checkpoint ${checkpoint}" : ''
    def listed = [files].flatten()
    def named = names ? [names, listed].transpose().collect { name, file -> "${name}=${file}" }.join(' ') : listed.join(' ')
    """
    xmodal check \\
        ${args} \\
        --overwrite \\
        --threads ${task.cpus} \\
        --device cpu \\
        ${model} \\
        --json ${prefix}.check.json \\
        ${named}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo '{}' > ${prefix}.check.json
    """
}
