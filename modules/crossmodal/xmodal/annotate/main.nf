process XMODAL_ANNOTATE {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    // split: annotate these cells only (train, valid, test), or ''
    tuple val(meta), path(cells, stageAs: 'input/*'), path(checkpoint, stageAs: 'checkpoint/*'), val(split)
    path candidates // ids of the Cell Ontology that cells may be called, one in each line, or [] for the types trained on

    output:
    tuple val(meta), path("*.h5ad")                   , emit: h5ad
    tuple val(meta), path("${prefix}")                , emit: annotation
    tuple val(meta), path("${prefix}/annotation.tsv") , emit: table
    tuple val(meta), path("${prefix}/annotation.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    def chosen = split ? "--split ${split}" : ''
    def named = candidates ? "--candidates ${candidates}" : ''
    """
    xmodal annotate \\
        ${args} \\
        --overwrite \\
        ${chosen} \\
        ${named} \\
        --checkpoint ${checkpoint} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output ${prefix}.h5ad \\
        --report-dir ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}.h5ad ${prefix}/index.html ${prefix}/annotation.png ${prefix}/annotation.tsv ${prefix}/composition.tsv ${prefix}/clusters.tsv ${prefix}/genes.tsv
    echo '{}' > ${prefix}/annotation.json
    """
}
