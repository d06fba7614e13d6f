//! Lists the files of GPUs' drivers by name.
//!
//! NVIDIA's libraries work only with the kernel modules of the same release, so the node's are used. The libraries of
//! AMD (ROCm) and Intel (Level Zero, OpenCL) use stable interfaces of the kernel (kfd, drm), come with the images, and
//! need other libraries of the same age there (LLVM, libstdc++). None of theirs is taken from the node, unless
//! coracle.yaml names it.
#![forbid(unsafe_code)]

use super::Vendor;

/// Directories of programs.
pub(super) const BIN: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];

const NVIDIA: &[&str] = &[
    // Computing and management.
    "libcuda.so",
    "libcudadebugger.so",
    "libnvidia-cfg.so",
    "libnvidia-gpucomp.so",
    "libnvidia-ml.so",
    "libnvidia-nscq.so",
    "libnvidia-nvvm.so",
    "libnvidia-nvvm70.so",
    "libnvidia-opencl.so",
    "libnvidia-pkcs11.so",
    "libnvidia-pkcs11-openssl3.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvidia-sandboxutils.so",
    "libnvidia-fatbinaryloader.so",
    "libnvidia-compiler.so",
    "libnvidia-allocator.so",
    // Video.
    "libnvcuvid.so",
    "libnvidia-encode.so",
    "libnvidia-opticalflow.so",
    "libvdpau_nvidia.so",
    // Graphics.
    "libEGL_nvidia.so",
    "libGLESv1_CM_nvidia.so",
    "libGLESv2_nvidia.so",
    "libGLX_nvidia.so",
    "libnvidia-api.so",
    "libnvidia-cbl.so",
    "libnvidia-egl-gbm.so",
    "libnvidia-egl-wayland.so",
    "libnvidia-egl-xcb.so",
    "libnvidia-egl-xlib.so",
    "libnvidia-eglcore.so",
    "libnvidia-fbc.so",
    "libnvidia-glcore.so",
    "libnvidia-glsi.so",
    "libnvidia-glvkspirv.so",
    "libnvidia-gtk2.so",
    "libnvidia-gtk3.so",
    "libnvidia-ifr.so",
    "libnvidia-present.so",
    "libnvidia-rtcore.so",
    "libnvidia-tls.so",
    "libnvidia-vksc-core.so",
    "libnvoptix.so",
    // Deep learning for images.
    "libnvidia-ngx.so",
];
const NVIDIA_PROGRAMS: &[&str] =
    &["nvidia-smi", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server", "nvidia-debugdump", "nvidia-persistenced"];
const NVIDIA_FILES: &[&str] = &["/run/nvidia-persistenced/socket"];

impl Vendor {
    /// Libraries of the vendor's driver.
    pub(super) fn libraries(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => NVIDIA,
            Self::Amd | Self::Intel => &[],
        }
    }

    /// Programs of the vendor's driver. Those of other vendors are scripts that need more files (rocm-smi), or belong
    /// to the libraries of the image.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => NVIDIA_PROGRAMS,
            Self::Amd | Self::Intel => &[],
        }
    }

    /// Files that the driver's libraries open at a certain path.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nvidia => NVIDIA_FILES,
            Self::Amd | Self::Intel => &[],
        }
    }
}
