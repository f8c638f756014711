"""BasicSR, mmengine, gradio and ray: the only files that build on those packages."""
