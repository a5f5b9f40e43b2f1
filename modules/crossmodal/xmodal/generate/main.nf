process XMODAL_GENERATE {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    tuple val(meta), path(checkpoint, stageAs: 'checkpoint/*'), path(prompts)
    path text_model // folder of the text encoder that the model was trained with, where prompts are free text, or []

    output:
    tuple val(meta), path("*.h5ad")                  , emit: h5ad
    tuple val(meta), path("${prefix}")               , emit: overview
    tuple val(meta), path("${prefix}/prompts.tsv")   , emit: table
    tuple val(meta), path("${prefix}/generated.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    def encoder = text_model ? "--text-model ${text_model}" : ''
    """
    xmodal generate \\
        ${args} \\
        --overwrite \\
        ${encoder} \\
        --checkpoint ${checkpoint} \\
        --prompts ${prompts} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output ${prefix}.h5ad \\
        --overview ${prefix}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}.h5ad ${prefix}/generated.png ${prefix}/prompts.tsv ${prefix}/genes.tsv
    echo '{}' > ${prefix}/generated.json
    """
}
